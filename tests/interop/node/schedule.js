"use strict";
// Node's worker as a scheduler, until its input ends: node schedule.js graphile-worker '* * * * * report'. It runs no
// job. The first word is the package: 0.18 has a name of its own. Tells "ready" once it schedules, and what it logs as
// an error.

const { EventEmitter } = require("node:events");
const { pathToFileURL } = require("node:url");
const { main, options, tell } = require("./common.js");

main(async () => {
  const [, , name, crontab] = process.argv;
  const { run, Logger } = await import(pathToFileURL(require.resolve(name)));
  const given = options({ idleTimeoutMillis: 0 });
  const events = new EventEmitter();
  events.once("cron:started", () => tell("ready"));
  const runner = await run({
    ...given,
    events,
    crontab,
    logger: new Logger(() => (level, message) => level === "error" && tell({ error: message })),
    taskList: { nothing: () => {} },
    pollInterval: 24 * 60 * 60 * 1000,
    noHandleSignals: true,
  });
  process.stdin.on("end", async () => {
    await runner.stop();
    await given.pgPool.end();
  });
  process.stdin.resume();
});
