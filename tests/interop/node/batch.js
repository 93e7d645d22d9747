"use strict";
// Node's worker with a handler of batches, until no job is due: node batch.js TASK. Each entry has a promise of its own,
// which is rejected where the entry holds a `fail`; tells what the handler was given.

const { runOnce } = require("graphile-worker");
const { main, options, tell } = require("./common.js");

main(async () => {
  const given = options();
  const handle = async (payload, { job }) => {
    tell({ payload, attempt: job.attempts });
    return payload.map((entry) => (entry.fail ? Promise.reject(new Error(entry.fail)) : Promise.resolve()));
  };
  await runOnce({ ...given, taskList: { [process.argv[2]]: handle }, noHandleSignals: true });
  await given.pgPool.end();
});
