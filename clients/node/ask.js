// What all calls share: a call as a promise with a deadline, and what was wanted of its answer.
import { isDeepStrictEqual } from 'node:util'
import grpc from '@grpc/grpc-js'

// The answer of a unary call, which gets ten seconds unless it says otherwise. hear(call) gets the call while it runs.
export function ask (stub, method, request, { metadata = new grpc.Metadata(), options = {}, hear = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    const settings = { deadline: Date.now() + 10_000, ...options }
    hear(stub[method](request, metadata, settings, (error, answer) => error ? reject(error) : resolve(answer)))
  })
}

export const same = isDeepStrictEqual

export function want (condition, got) {
  if (!condition) throw new Error(`got ${typeof got === 'string' ? got : JSON.stringify(got)}`)
}

// Holds a call that has to fail against its status code and a part of its text.
export async function wantError (answer, code, text) {
  const error = await answer.then(() => null, (reason) => reason)
  want(error && error.code === code && error.details.includes(text), error ? error.message : 'an answer')
}
