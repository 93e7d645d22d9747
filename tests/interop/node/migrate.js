"use strict";
// Node's own migrations: node migrate.js

const { runMigrations } = require("graphile-worker");
const { main, options } = require("./common.js");

main(async () => {
  const given = options();
  await runMigrations(given);
  await given.pgPool.end();
});
