# The two commands to know: `make demo` and `make test`. Both set up what they need on a fresh machine with Rust.

CARGO ?= cargo
# What the long runs take: cases per parser, schedules per model, histories of the ledger and events of its day, seconds
# of mixed load with faults and of each outage.
SOAK_CASES ?= 1000000
# Connections that say nonsense to a whole service, and credentials.
SOAK_CONNECTIONS ?= 200000
SOAK_SCHEDULES ?= 200000
SOAK_HISTORIES ?= 200000
SOAK_EVENTS ?= 8640000
# Seconds of writers and pods that fall asleep; rows through the event log.
SOAK_DOORBELL_SECONDS ?= 600
SOAK_LOG_ROWS ?= 2000000
# Of the bench; all of them unless some are named.
QUESTIONS ?=
SOAK_SECONDS ?= 600
SOAK_OUTAGE_SECONDS ?= 30
SOAK_ORACLE_SECONDS ?= 300

.PHONY: demo cluster test sabotage lint bench pictures soak tools

## Plays the incident that Seawall exists for, then stays up for you to try.
demo:
	$(CARGO) run --release --quiet -- demo

## The same with three pods that share a Redis, as processes on this machine: one statement for all of them, and one of them dies.
cluster:
	@scripts/tools.sh redis
	$(CARGO) run --release --quiet -- demo --pods 3

## Every test, against real PostgreSQL and real Redis.
test: tools
	$(CARGO) test --locked --quiet --no-fail-fast

## Whether the oracle of invalidation and the doorbell's model notice services that are broken on purpose.
sabotage: tools
	$(CARGO) test --locked --quiet --features sabotage --test oracle --test doorbell -- sabotage broken

## What continuous integration checks beside the tests.
lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --lib --bins -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet

## What the running service costs and does under load; five minutes on a machine with nothing else to do. See
## docs/performance.md. Some questions alone: make bench QUESTIONS="expiry cost"
bench: tools
	scripts/tools.sh wrk
	$(CARGO) build --locked --release --bins
	$(CARGO) bench --locked --bench service -- $(QUESTIONS)

## Puts the last measurement's pictures and figures into docs/performance.md; measures nothing.
pictures:
	$(CARGO) bench --locked --quiet --bench service -- publish $(QUESTIONS)

## Mixed load with random faults, outages, the oracle of invalidation with all of its faults, the parsers' fuzzing, the flights',
## the ledger's and the doorbell's models, for long. SEAWALL_SEED repeats one.
soak: tools
	SEAWALL_SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --release --test soak -- --nocapture
	SEAWALL_OUTAGE_SECONDS=$(SOAK_OUTAGE_SECONDS) $(CARGO) test --locked --release --test integration outage
	SEAWALL_ORACLE_SECONDS=$(SOAK_ORACLE_SECONDS) $(CARGO) test --locked --release --test oracle -- --include-ignored --nocapture --test-threads 1
	SEAWALL_FUZZ_CASES=$(SOAK_CASES) $(CARGO) test --locked --release --test parsers --test config
	SEAWALL_FUZZ_CASES=$(SOAK_CONNECTIONS) $(CARGO) test --locked --release --test fuzz
	SEAWALL_SHUTTLE_ITERATIONS=$(SOAK_SCHEDULES) $(CARGO) test --locked --release --test flight_model --test ledger_race
	SEAWALL_LEDGER_HISTORIES=$(SOAK_HISTORIES) $(CARGO) test --locked --release --test ledger_model -- --nocapture
	SEAWALL_LEDGER_EVENTS=$(SOAK_EVENTS) $(CARGO) test --locked --release --test ledger_size -- --nocapture
	SEAWALL_DOORBELL_SECONDS=$(SOAK_DOORBELL_SECONDS) $(CARGO) test --locked --release --test doorbell -- --nocapture no_commit
	SEAWALL_LOG_ROWS=$(SOAK_LOG_ROWS) $(CARGO) test --locked --release --test integration -- log::

## What the tests need where the machine has none: PostgreSQL, PgBouncer, Redis, curl, validators of OpenAPI.
tools:
	@scripts/tools.sh postgres pgbouncer redis faketime prometheus nginx curl psql python node
