"use strict";
// Node's addJob: node add.js '[["task", {"some": "payload"}, {"queueName": "q"}], ...]'; tells each job's row.

const { makeWorkerUtils } = require("graphile-worker");
const { main, options, tell } = require("./common.js");

main(async () => {
  const given = options();
  const utils = await makeWorkerUtils(given);
  for (const [task, payload, { runAt, ...spec }] of JSON.parse(process.argv[2])) {
    if (runAt) spec.runAt = new Date(runAt);
    tell(await utils.addJob(task, payload, spec));
  }
  await utils.release();
  await given.pgPool.end();
});
