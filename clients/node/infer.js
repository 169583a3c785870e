// Inference: tensors as bytes and as numbers, versions, metadata, errors, deadlines, streams.
import grpc from '@grpc/grpc-js'
import { ask, same, want, wantError } from './ask.js'

// A picture of 8 x 8 pixels, in sixteenths.
const nine = [
  0, 0, 2, 10, 16, 11, 1, 0,
  0, 0, 13, 13, 10, 16, 8, 0,
  0, 4, 14, 1, 8, 14, 1, 0,
  0, 4, 15, 12, 15, 8, 0, 0,
  0, 0, 6, 7, 14, 5, 0, 0,
  0, 1, 2, 0, 12, 5, 0, 0,
  0, 8, 15, 6, 13, 4, 0, 0,
  0, 0, 5, 11, 16, 3, 0, 0,
].map((sixteenths) => sixteenths / 16)

// Raw contents: little-endian bytes, one entry for each input, in their order.
function request (count = 1) {
  const bytes = Buffer.alloc(count * 64 * 4)
  for (let i = 0; i < count * 64; i++) bytes.writeFloatLE(nine[i % 64], i * 4)
  const inputs = [{ name: 'image', datatype: 'FP32', shape: [count, 64] }]
  return { model_name: 'digits', inputs, raw_input_contents: [bytes] }
}

function wantLabels (answer, digit, count) {
  const bytes = answer.raw_output_contents[answer.outputs.findIndex((output) => output.name === 'label')]
  want(bytes && bytes.length === count * 8, answer.outputs)
  for (let i = 0; i < count; i++) want(bytes.readBigInt64LE(i * 8) === digit, `label ${bytes.readBigInt64LE(i * 8)} at ${i}`)
}

export async function raw (client) {
  wantLabels(await ask(client, 'ModelInfer', request(3)), 9n, 3)
}

// Typed contents: numbers in a field for their datatype. The answer is typed where the parameter asks for that, raw otherwise.
export async function typed (client) {
  const inputs = [{ name: 'image', datatype: 'FP32', shape: [1, 64], contents: { fp32_contents: nine } }]
  const parameters = { binary_data_output: { bool_param: false } }
  const answer = await ask(client, 'ModelInfer', { model_name: 'digits', inputs, parameters })
  const label = answer.outputs.find((output) => output.name === 'label')
  want(same(label?.contents?.int64_contents, ['9']), answer.outputs)
}

// The first version takes this nine for an eight.
export async function version (client) {
  const answer = await ask(client, 'ModelInfer', { ...request(), model_version: '1' })
  want(answer.model_version === '1', `version ${answer.model_version}`)
  wantLabels(answer, 8n, 1)
}

// Of a model that answers its input "x" as its output "y".
async function echo (client, model, datatype, bytes) {
  const inputs = [{ name: 'x', datatype, shape: [1, 3] }]
  const answer = await ask(client, 'ModelInfer', { model_name: model, inputs, raw_input_contents: [bytes] })
  const { name, datatype: got, shape } = answer.outputs[0]
  want(same([name, got, shape], ['y', datatype, ['1', '3']]) && bytes.equals(answer.raw_output_contents[0]), answer)
}

// Each element behind its length, a little-endian uint32. Any bytes come back as they were.
export async function bytes (client) {
  const elements = [Buffer.from('nine'), Buffer.alloc(0), Buffer.from([0x00, 0xff])]
  const parts = elements.flatMap((element) => {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(element.length)
    return [length, element]
  })
  await echo(client, 'identity_bytes', 'BYTES', Buffer.concat(parts))
}

// FP16 travels raw alone: 1, -2 and infinity.
export async function fp16 (client) {
  await echo(client, 'identity_fp16', 'FP16', Buffer.from([0x00, 0x3c, 0x00, 0xc0, 0x00, 0x7c]))
}

export async function idAndParameters (client) {
  const timeout = { int64_param: 5_000_000 } // µs until the run has to start
  const note = { string_param: "of the caller's own" }
  const answer = await ask(client, 'ModelInfer', { ...request(), id: 'picture-1', parameters: { timeout, note } })
  want(answer.id === 'picture-1', `id ${answer.id}`)
  wantLabels(answer, 9n, 1)
}

export async function requestedOutputs (client) {
  const answer = await ask(client, 'ModelInfer', { ...request(), outputs: [{ name: 'label' }] })
  want(answer.outputs.length === 1, answer.outputs)
  wantLabels(answer, 9n, 1)
}

// Metadata goes out with the call; what comes back is in the headers, before the answer, and in the trailers, after it.
export async function headersAndTrailers (client) {
  const metadata = new grpc.Metadata()
  metadata.set('x-request-id', 'request-1')
  metadata.set('x-server-timing', '1')
  metadata.set('note-bin', Buffer.from([0x00, 0xff]))
  let headers, trailers
  const hear = (call) => call.on('metadata', (got) => { headers = got }).on('status', (status) => { trailers = status.metadata })
  await ask(client, 'ModelInfer', request(), { metadata, hear })
  await new Promise(setImmediate) // the status is told right after the answer
  want(same(headers.get('x-request-id'), ['request-1']), headers)
  want(same(trailers.get('x-model-version'), ['2']) && trailers.get('server-timing').length === 1, trailers)
}

// A request compressed with gzip, which is a setting of a channel. Its answer comes compressed as well; the library handles that.
export async function compressed (client) {
  const settings = { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip }
  const compressing = new client.constructor(client.getChannel().getTarget(), grpc.credentials.createInsecure(), settings)
  try {
    wantLabels(await ask(compressing, 'ModelInfer', request(1000)), 9n, 1000)
  } finally {
    compressing.close()
  }
}

export async function unknownModel (client) {
  await wantError(ask(client, 'ModelInfer', { ...request(), model_name: 'nobody' }), grpc.status.NOT_FOUND, 'unknown model "nobody"')
}

export async function badShape (client) {
  const asked = request()
  asked.inputs[0].shape = [1, 63]
  asked.raw_input_contents[0] = asked.raw_input_contents[0].subarray(4)
  await wantError(ask(client, 'ModelInfer', asked), grpc.status.INVALID_ARGUMENT, '[1,63] given, [-1,64] wanted')
}

// Of a model that takes a second or more.
function slowly (client, more) {
  const inputs = [{ name: 'x', datatype: 'FP32', shape: [1, 256, 256] }]
  return ask(client, 'ModelInfer', { model_name: 'slow', inputs, raw_input_contents: [Buffer.alloc(256 * 256 * 4)] }, more)
}

// The deadline goes to the server, which does not begin what would come too late.
export async function deadline (client) {
  await wantError(slowly(client, { options: { deadline: Date.now() + 100 } }), grpc.status.DEADLINE_EXCEEDED, '')
}

export async function cancel (client) {
  const hear = (call) => setTimeout(() => call.cancel(), 100)
  await wantError(slowly(client, { hear }), grpc.status.CANCELLED, '')
}

// Five requests on one stream, the third of them wrong: it is answered by an error, in its place, and the stream goes on.
export async function stream (client) {
  const asked = client.ModelStreamInfer({ deadline: Date.now() + 10_000 })
  for (let i = 0; i < 5; i++) {
    const message = { ...request(), id: String(i) }
    if (i === 2) message.inputs[0].name = 'picture'
    asked.write(message)
  }
  asked.end()
  let count = 0
  for await (const answer of asked) {
    if (count === 2) {
      want(answer.error_message !== '', answer)
    } else {
      want(answer.infer_response?.id === String(count), answer)
      wantLabels(answer.infer_response, 9n, 1)
    }
    count++
  }
  want(count === 5, `${count} answers`)
}
