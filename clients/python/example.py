"""What a client does with Seawall: see ../README.md for what it needs."""

import json
import os

import psycopg

from seawall import Problem, Seawall

seawall = Seawall(os.environ.get("SEAWALL_URL", "http://127.0.0.1:8080"), os.environ.get("SEAWALL_TOKEN"))

print("product:", json.dumps(seawall.ask("product", {"id": 1})))
# The same again: a 304, and the answer from this client's own memory.
print("again:", json.dumps(seawall.ask("product", {"id": 1})))

for label, product in [("absent", 999_999), ("bad", "one")]:
    try:
        seawall.ask("product", {"id": product})
    except Problem as problem:
        print(f"{label}: {problem.status} {problem.code}", *(error["param"] for error in problem.errors))

# Read your own write: the token is taken in the transaction, and sent with the reads that must see it.
with psycopg.connect(os.environ["DATABASE_URL"]) as database:
    database.execute("UPDATE shop.products SET stock = stock + 1 WHERE id = 1")
    [written] = database.execute("SELECT seawall.token()").fetchone()
print("written:", json.dumps(seawall.ask("product", {"id": 1}, after=written)))
