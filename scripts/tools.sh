#!/bin/sh
# Installs what tests and benches need where it is missing, with the system's package manager, and says what it does.
# Usage: scripts/tools.sh TOOL...    (curl, postgres, psql, pgbouncer, redis, faketime, prometheus, nginx, python, node, wrk)
set -eu

have_postgres() {
    [ -n "${SEAWALL_PG_BIN:-}" ] && return 0
    command -v initdb >/dev/null 2>&1 && return 0
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/pgsql/bin; do
        [ -x "$dir/initdb" ] && return 0
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install() {
    echo "tools: installing $1 (missing on this machine)" >&2
    if command -v apt-get >/dev/null 2>&1; then
        as_root apt-get update -q >&2
        # A test's Postgres is started by the test: no cluster and no service of the system's own.
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $2 >&2
    elif command -v dnf >/dev/null 2>&1; then
        as_root dnf install -y "$3" >&2
    elif command -v brew >/dev/null 2>&1; then
        brew install "$4" >&2
    else
        echo "tools: no apt-get, dnf or brew here; install $1 by hand" >&2
        return 1
    fi
}

# What a package has started just now: tests start their own.
no_service() {
    if command -v systemctl >/dev/null 2>&1 && as_root systemctl disable --now "$1" >&2; then return 0; fi
    if command -v service >/dev/null 2>&1; then as_root service "$1" stop >&2 || true; fi
}

# Tools in Python, in an environment of the project's own.
python_tools() {
    here="target/tools/python"
    wanted="tests/integration/openapi/requirements.txt tests/integration/deploy/requirements.txt clients/python/requirements.txt"
    cat $wanted | cmp -s - "$here/installed.txt" && return 0
    echo "tools: installing what $wanted name into $here" >&2
    python3 -c 'import venv, ensurepip' 2>/dev/null || install Python python3-venv python3 python3
    python3 -m venv "$here"
    for file in $wanted; do
        "$here/bin/pip" install --quiet --disable-pip-version-check -r "$file" >&2
    done
    cat $wanted >"$here/installed.txt"
}

# What the client in TypeScript is built with.
node_tools() {
    here="target/tools/typescript"
    wanted="clients/typescript/package-lock.json"
    cmp -s "$wanted" "$here/installed.json" && return 0
    command -v npm >/dev/null 2>&1 || install Node.js "nodejs npm" nodejs-npm node
    echo "tools: installing what $wanted names into $here" >&2
    mkdir -p "$here"
    cp clients/typescript/package.json clients/typescript/package-lock.json "$here"
    (cd "$here" && npm ci --silent --no-audit --no-fund >&2)
    cp "$wanted" "$here/installed.json"
}

for tool in "$@"; do
    case "$tool" in
        # Without a package the embedded server's own download is still there.
        postgres) have_postgres || install PostgreSQL postgresql postgresql-server postgresql ||
            echo "tools: going on without; the embedded server will download its binaries" >&2 ;;
        pgbouncer) command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ] || install PgBouncer pgbouncer pgbouncer pgbouncer ;;
        redis)
            command -v redis-server >/dev/null 2>&1 || { install Redis redis-server redis redis && no_service redis-server; }
            command -v redis-sentinel >/dev/null 2>&1 ||
                { install "Redis Sentinel" redis-sentinel redis redis && no_service redis-sentinel; } ;;
        prometheus) command -v promtool >/dev/null 2>&1 || { install Prometheus prometheus golang-github-prometheus prometheus && no_service prometheus; } ;;
        nginx) command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || { install nginx nginx nginx nginx && no_service nginx; } ;;
        faketime) ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || install libfaketime libfaketime libfaketime libfaketime ;;
        curl) command -v curl >/dev/null 2>&1 || install curl curl curl curl ;;
        psql) command -v psql >/dev/null 2>&1 || install psql postgresql-client postgresql libpq ;;
        python) python_tools ;;
        node) node_tools ;;
        wrk) command -v wrk >/dev/null 2>&1 || install wrk wrk wrk wrk ;;
        *) echo "tools: unknown tool $tool" >&2; exit 2 ;;
    esac
done
