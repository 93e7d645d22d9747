// Node's graphile-worker in a process of its own, for `members.py`: `node node_member.mjs DSN`. It is configured as in
// node_worker.mjs. It prints "ready", waits for a line, and then prints `[when, started]` until its standard input ends.
import { createInterface } from "node:readline";
import pg from "pg";
import { Logger, run } from "graphile-worker";

const pool = new pg.Pool({ connectionString: process.argv[2], max: 12 });
await pool.query("select 1");
const lines = createInterface({ input: process.stdin });
const ended = new Promise((resolve) => lines.once("close", resolve));
const go = new Promise((resolve) => lines.once("line", resolve));
console.log(JSON.stringify("ready"));
await go;
let count = 0;
let told = 0;
const runner = await run({
  pgPool: pool,
  logger: new Logger(() => () => {}),
  noHandleSignals: true,
  taskList: {
    noop: () => {
      count += 1;
    },
  },
  preset: {
    worker: {
      concurrentJobs: 24,
      pollInterval: 2000,
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      localQueue: { size: 500 },
    },
  },
});
const telling = setInterval(() => {
  if (count > told) {
    told = count;
    console.log(JSON.stringify([Number(process.hrtime.bigint()) / 1e9, told]));
  }
}, 20);
await ended;
clearInterval(telling);
await runner.stop();
await pool.end();
