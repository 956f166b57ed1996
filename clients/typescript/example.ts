/** What a client does with Seawall: see ../README.md for what it needs. */

import pg from "pg";

import type { paths } from "./queries.js";
import { Problem, Seawall } from "./seawall.js";

const url = process.env["SEAWALL_URL"] ?? "http://127.0.0.1:8080";
const seawall = new Seawall<paths>(url, { token: process.env["SEAWALL_TOKEN"] });

console.log("product:", JSON.stringify(await seawall.ask("product", { id: 1 })));
// The same again: a 304, and the answer from this client's own memory.
const again = await seawall.ask("product", { id: 1 });
console.log("again:", JSON.stringify(again));

const questions = {
  // @ts-expect-error There is no such query: the service's own document says so before anything runs.
  unknown: () => seawall.ask("products", { id: 1 }),
  absent: () => seawall.ask("product", { id: 999_999 }),
  // @ts-expect-error An id is a number.
  bad: () => seawall.ask("product", { id: "one" }),
};
for (const [label, question] of Object.entries(questions)) {
  try {
    await question();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    console.log(`${label}:`, problem.status, problem.code, ...problem.errors.map(({ param }) => param));
  }
}

// Read your own write: the token is taken in the transaction, and sent with the reads that must see it.
const database = new pg.Client({ connectionString: process.env["DATABASE_URL"] });
await database.connect();
await database.query("BEGIN");
await database.query("UPDATE shop.products SET stock = stock + 1 WHERE id = 1");
const written: string = (await database.query("SELECT seawall.token()")).rows[0].token;
await database.query("COMMIT");
await database.end();
console.log("written:", JSON.stringify(await seawall.ask("product", { id: 1 }, { after: written })));
