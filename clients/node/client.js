// A client of the v2 protocol: one function a call. `node client.js ADDRESS [CALL...]` prints a line for each: its name, and ok or what went wrong.
import { fileURLToPath } from 'node:url'
import grpc from '@grpc/grpc-js'
import loader from '@grpc/proto-loader'
import * as infer from './infer.js'
import { ask, same, want, wantError } from './ask.js'

const folders = ['../../protos', '../protos'].map((folder) => fileURLToPath(new URL(folder, import.meta.url)))
// int64 as text, because a JavaScript number holds 53 bits; names as they stand in the .proto; fields that were not sent with their defaults.
const options = { includeDirs: folders, longs: String, enums: String, keepCase: true, defaults: true, oneofs: true }
const files = ['inference.proto', 'health.proto', 'reflection.proto']
const { inference, grpc: standard } = grpc.loadPackageDefinition(await loader.load(files, options))

// A stub of another service on the same connection.
const stub = (client, Service) => new Service('', null, { channelOverride: client.getChannel() })

async function live (client) {
  const answer = await ask(client, 'ServerLive', {})
  want(answer.live, answer)
}

async function ready (client) {
  const answer = await ask(client, 'ServerReady', {})
  want(answer.ready, answer)
}

async function modelReady (client) {
  const answer = await ask(client, 'ModelReady', { name: 'digits', version: '1' })
  want(answer.ready, answer)
}

async function serverMetadata (client) {
  const answer = await ask(client, 'ServerMetadata', {})
  want(answer.name === 'batchmill' && answer.version !== '', answer)
}

async function modelMetadata (client) {
  const answer = await ask(client, 'ModelMetadata', { name: 'digits' })
  want(same(answer.inputs, [{ name: 'image', datatype: 'FP32', shape: ['-1', '64'] }]) && same(answer.versions, ['1', '2']), answer)
}

async function modelConfig (client) {
  const { config } = await ask(client, 'ModelConfig', { name: 'digits' })
  want(config.name === 'digits' && config.max_batch_size > 0, config)
}

async function statistics (client) {
  const { model_stats: found } = await ask(client, 'ModelStatistics', { name: 'digits', version: '2' })
  want(found.length === 1 && found[0].name === 'digits' && found[0].version === '2' && found[0].inference_stats, found)
}

async function repositoryIndex (client) {
  const { models } = await ask(client, 'RepositoryIndex', { ready: true })
  want(models.filter((model) => model.name === 'digits' && model.state === 'READY').length === 2, models)
}

async function loadUnload (client) {
  await ask(client, 'RepositoryModelUnload', { model_name: 'spare' })
  const gone = await ask(client, 'ModelReady', { name: 'spare' })
  want(!gone.ready, 'ready after unload')
  await ask(client, 'RepositoryModelLoad', { model_name: 'spare' })
  const back = await ask(client, 'ModelReady', { name: 'spare' })
  want(back.ready, 'not ready after load')
}

async function healthCheck (client) {
  const health = stub(client, standard.health.v1.Health)
  for (const service of ['', 'digits']) {
    const answer = await ask(health, 'Check', { service })
    want(answer.status === 'SERVING', answer)
  }
  await wantError(ask(health, 'Check', { service: 'nobody' }), grpc.status.NOT_FOUND, '')
}

async function healthWatch (client) {
  const health = stub(client, standard.health.v1.Health)
  const watch = health.Watch({ service: '' }, { deadline: Date.now() + 10_000 })
  for await (const answer of watch) {
    want(answer.status === 'SERVING', answer)
    break // which cancels the watch
  }
}

async function listServices (client) {
  const reflection = stub(client, standard.reflection.v1alpha.ServerReflection)
  const asked = reflection.ServerReflectionInfo({ deadline: Date.now() + 10_000 })
  asked.write({ list_services: '' })
  asked.end()
  for await (const answer of asked) {
    const { service } = answer.list_services_response
    want(service.some((one) => one.name === 'inference.GRPCInferenceService'), service)
  }
}

const calls = [ // name, function, and the model that it needs beside "digits"
  ['live', live],
  ['ready', ready],
  ['model-ready', modelReady],
  ['server-metadata', serverMetadata],
  ['model-metadata', modelMetadata],
  ['model-config', modelConfig],
  ['statistics', statistics],
  ['repository-index', repositoryIndex],
  ['load-unload', loadUnload, 'spare'],
  ['infer-raw', infer.raw],
  ['infer-typed', infer.typed],
  ['version', infer.version],
  ['bytes', infer.bytes, 'identity_bytes'],
  ['fp16', infer.fp16, 'identity_fp16'],
  ['id-parameters', infer.idAndParameters],
  ['outputs', infer.requestedOutputs],
  ['metadata', infer.headersAndTrailers],
  ['compressed-request', infer.compressed],
  ['compressed-response', infer.compressed],
  ['unknown-model', infer.unknownModel],
  ['bad-shape', infer.badShape],
  ['deadline', infer.deadline, 'slow'],
  ['cancel', infer.cancel, 'slow'],
  ['stream', infer.stream],
  ['health-check', healthCheck],
  ['health-watch', healthWatch],
  ['reflection', listServices],
]

async function outcome (client, call, model) {
  try {
    if (model) await ask(client, 'ModelReady', { name: model })
  } catch (error) {
    if (error.code === grpc.status.NOT_FOUND) return `skipped: the server has no model "${model}"`
    return `failed: ${error.message}`
  }
  try {
    await call(client)
    return 'ok'
  } catch (error) {
    return `failed: ${error.message}`.replace(/\s+/g, ' ')
  }
}

const [address, ...wanted] = process.argv.slice(2)
if (!address) {
  console.error('usage: node client.js ADDRESS [CALL...]')
  process.exit(2)
}
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure())
for (const [name, call, model] of calls) {
  if (wanted.length && !wanted.includes(name)) continue
  const result = await outcome(client, call, model)
  if (result.startsWith('failed')) process.exitCode = 1
  console.log(`${name}\t${result}`)
}
client.close()
