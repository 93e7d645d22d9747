"use strict";
// What the scripts beside it share: the database that the PG* variables name, and a line of JSON for each thing told.

const { Logger } = require("graphile-worker");
const { Pool } = require("pg");

exports.options = (pool = {}) => {
  const pgPool = new Pool({ max: 10, ...pool });
  const raise = (error) => process.emit("uncaughtException", error);
  pgPool.on("error", raise); // Node's worker complains about a pool without
  pgPool.on("connect", (client) => client.on("error", raise));
  return { pgPool, logger: new Logger(() => () => {}) };
};

exports.tell = (thing) => process.stdout.write(`${JSON.stringify(thing)}\n`);

exports.main = (work) => {
  work().catch((error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  });
};
