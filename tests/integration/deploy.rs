//! What `docker/` ships: held against public schemas and tools, against the metrics that there are, and run as processes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use seawall::telemetry::metrics::{Listener, Metrics};
use serde_json::Value;

mod balanced;

fn docker(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(docker(path)).unwrap_or_else(|error| panic!("docker/{path}: {error}"))
}

/// Runs a tool that ends with success; what it says.
fn succeeds(program: impl AsRef<Path>, words: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; `make tools` installs it", program.display()));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {words:?}: {said}", program.display());
    said
}

fn python_tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/python/bin").join(name)
}

/// Of the dashboard, with its variables filled in; and of the alerts.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/seawall.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let fill_in =
        |expr: &str| expr.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$query", ".*");
    let mut all: Vec<String> = targets.map(|target| fill_in(target["expr"].as_str().expect("an expression"))).collect();
    let shown = all.len();
    let alerts = read("prometheus/alerts.yml");
    all.extend(alerts.split("expr: >-\n").skip(1).map(|rest| rest.lines().next().expect("a line").trim().to_owned()));
    assert!(shown > 20 && all.len() > shown + 10, "{shown} and {} expressions", all.len() - shown);
    all
}

/// The selectors of an expression, and the labels that it groups by.
fn parts<'a>(expr: &'a Expr, selectors: &mut Vec<&'a VectorSelector>, labels: &mut BTreeSet<String>) {
    let by = |modifier: &Option<LabelModifier>, labels: &mut BTreeSet<String>| match modifier {
        Some(LabelModifier::Include(by) | LabelModifier::Exclude(by)) => labels.extend(by.labels.iter().cloned()),
        None => {}
    };
    match expr {
        Expr::Aggregate(aggregate) => {
            by(&aggregate.modifier, labels);
            parts(&aggregate.expr, selectors, labels);
        }
        Expr::Binary(binary) => {
            parts(&binary.lhs, selectors, labels);
            parts(&binary.rhs, selectors, labels);
        }
        Expr::Paren(inner) => parts(&inner.expr, selectors, labels),
        Expr::Call(call) => call.args.args.iter().for_each(|arg| parts(arg, selectors, labels)),
        Expr::MatrixSelector(range) => selectors.push(&range.vs),
        Expr::VectorSelector(vector) => selectors.push(vector),
        Expr::NumberLiteral(_) => {}
        other => panic!("{other:?}: not looked into"),
    }
}

/// What Prometheus adds to each series of a scrape.
const ADDED: [&str; 2] = ["instance", "job"];

#[test]
fn every_metric_and_label_of_the_dashboard_and_the_alerts_is_there() {
    let metrics = Metrics::new();
    let _handles = (metrics.query("q"), metrics.caller("c"));
    metrics.verdict("q", &["exact"], "exact");
    let _handshakes = metrics.handshakes(Listener::Queries);
    metrics.certificate(Listener::Queries, true, Duration::ZERO);
    let text = metrics.text();
    for expression in expressions() {
        let expr = parser::parse(&expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let (mut selectors, mut grouped) = (vec![], BTreeSet::new());
        parts(&expr, &mut selectors, &mut grouped);
        let mut known = BTreeSet::from(["le".to_owned()]);
        known.extend(ADDED.map(str::to_owned));
        for selector in selectors {
            let name = selector.name.as_deref().expect("a metric's name");
            if name == "up" {
                continue;
            }
            let series = text.lines().filter_map(|line| {
                let labels = line.strip_prefix(name)?.strip_prefix(['{', ' '])?.rsplit_once('}').map_or("", |(l, _)| l);
                let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
                Some(pairs.map(|(name, value)| (name, value.trim_matches('"'))).collect::<Vec<_>>())
            });
            let series: Vec<_> = series.collect();
            assert!(!series.is_empty(), "{expression}: there is no {name}");
            known.extend(series.iter().flatten().map(|(label, _)| (*label).to_owned()));
            let matchers = selector.matchers.matchers.iter().filter(|it| !ADDED.contains(&it.name.as_str()));
            for matcher in matchers {
                let found =
                    series.iter().flatten().any(|(label, value)| *label == matcher.name && matcher.is_match(value));
                assert!(found, "{expression}: no {name} has {matcher}");
            }
        }
        assert!(grouped.is_subset(&known), "{expression}: {grouped:?} of {known:?}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_draws() {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/seawall.json")).expect("JSON");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut squares) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(squares.insert((x, y)), "it lies over another: {panel}");
            }
        }
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel}");
    }
}

/// Of kustomize and of the Prometheus operator: no kinds of Kubernetes's own.
const OF_OTHERS: [&str; 3] = ["kustomization.yaml", "servicemonitor.yaml", "prometheusrule.yaml"];

#[test]
fn compose_kubernetes_and_prometheus_accept_what_is_shipped() {
    let compose = docker("compose.yaml").display().to_string();
    succeeds(python_tool("check-jsonschema"), &["--builtin-schema", "vendor.compose-spec", &compose]);
    let manifests =
        std::fs::read_dir(docker("kubernetes")).expect("a directory").map(|file| file.expect("a file").path());
    let mut checked = 0;
    for manifest in manifests {
        let name = manifest.file_name().expect("a name").to_string_lossy().into_owned();
        if !OF_OTHERS.contains(&name.as_str()) {
            succeeds(python_tool("kubernetes-validate"), &["--strict", &manifest.display().to_string()]);
            checked += 1;
        }
        if name != "kustomization.yaml" && name != "secret.example.yaml" {
            assert!(read("kubernetes/kustomization.yaml").contains(&format!("- {name}\n")), "{name} is not applied");
        }
    }
    assert!(checked >= 9, "{checked}");
    let prometheus = |file: &str| docker("prometheus").join(file).display().to_string();
    succeeds("promtool", &["check", "config", &prometheus("prometheus.yml")]);
    succeeds("promtool", &["check", "rules", &prometheus("alerts.yml")]);
    succeeds("promtool", &["test", "rules", &prometheus("alerts_test.yml")]);
}

#[test]
fn the_operator_has_the_same_alerts_word_for_word() {
    let alerts = read("prometheus/alerts.yml");
    let (_, groups) = alerts.split_once("\ngroups:\n").expect("groups");
    let rule = read("kubernetes/prometheusrule.yaml");
    let (_, there) = rule.split_once("\n  groups:\n").expect("groups");
    for (line, (alert, rule)) in groups.lines().zip(there.lines()).enumerate() {
        assert_eq!(format!("  {alert}"), rule, "line {line} of the groups");
    }
    assert_eq!(groups.lines().count(), there.lines().count());
}

#[test]
fn in_compose_no_pod_has_the_owners_password_and_everything_is_bounded_and_without_privileges() {
    let file = docker("compose.yaml").display().to_string();
    let json = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let compose = succeeds(python_tool("python"), &["-c", json, &file]);
    let compose: Value = serde_json::from_str(&compose).expect("JSON");
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert!(service["cap_add"].is_null() && service["privileged"].is_null(), "{name}");
        assert!(service["mem_limit"].is_string() && service["pids_limit"].is_u64(), "{name}");
        let ports = service["ports"].as_array().into_iter().flatten();
        assert!(ports.map(|port| port.as_str().expect("text")).all(|port| port.starts_with("127.0.0.1:")), "{name}");
        let secrets = service["secrets"].as_array().into_iter().flatten();
        let mut sources = secrets.filter_map(|secret| secret.as_str().or_else(|| secret["source"].as_str()));
        let has = sources.any(|source| source == "postgres_password");
        assert_eq!(has, ["postgres", "migrate"].contains(&name.as_str()), "{name}");
    }
}

/// The texts of a ConfigMap.
fn texts(manifest: &str) -> Vec<String> {
    let mut texts: Vec<String> = vec![];
    for line in manifest.lines() {
        if line.starts_with("  ") && line.ends_with(": |") {
            texts.push(String::new());
        } else if let Some(text) = texts.last_mut().filter(|_| line.is_empty() || line.starts_with("    ")) {
            text.push_str(line.strip_prefix("    ").unwrap_or(""));
            text.push('\n');
        }
    }
    texts
}

#[test]
fn the_configurations_that_are_shipped_are_good() {
    let mut configurations = vec![read("seawall.toml")];
    configurations.extend(texts(&read("kubernetes/configmap.yaml")));
    assert_eq!(configurations.len(), 3);
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("seawall")).expect("a directory");
    for name in ["app_password", "owner_password", "migrate_password", "redis_password"] {
        for at in ["", "seawall/"] {
            std::fs::write(dir.path().join(format!("{at}{name}")), "0a1b2c\n").expect("written");
            std::fs::write(dir.path().join(format!("{at}admin_token_sha256")), "0".repeat(64)).expect("written");
        }
    }
    for configuration in configurations {
        let file = dir.path().join("config.toml");
        let secrets = dir.path().display().to_string();
        std::fs::write(&file, configuration.replace("/run/secrets", &secrets)).expect("written");
        let file = file.display().to_string();
        succeeds(env!("CARGO_BIN_EXE_seawall"), &["check", "--offline", "--config", &file]);
    }
}

#[test]
fn the_image_has_nobodys_root_no_shell_no_secret_and_a_health_check() {
    let dockerfile = read("Dockerfile");
    let instructions: Vec<&str> = dockerfile.lines().filter(|line| !line.starts_with('#')).collect();
    let of = |word: &str| -> Vec<&str> {
        instructions.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
    };
    let images = of("FROM");
    assert!(images.len() == 2 && images[0].ends_with(" AS build"), "{images:?}");
    for image in images {
        let tag = image.split(' ').next().and_then(|name| name.rsplit_once(':')).expect("a tag").1;
        assert_ne!(tag, "latest");
    }
    assert!(of("ENV").is_empty() && of("ARG").is_empty() && of("ADD").is_empty(), "nothing that may hold a secret");
    let [user] = of("USER")[..] else { panic!("one user") };
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    let [entry] = of("ENTRYPOINT")[..] else { panic!("one entry point") };
    for command in [entry, of("CMD")[0], of("    CMD")[0]] {
        let words: Vec<String> = serde_json::from_str(command).expect("a list: there is no shell");
        assert!(!words.is_empty());
    }
    assert!(dockerfile.contains("\"health\", \"--url\", \"http://127.0.0.1:9090/livez\""));
    assert!(dockerfile.contains("cargo build --locked --release --no-default-features --bin seawall"));
    // And the rest of the images has a version each.
    let compose = read("compose.yaml");
    for image in compose.lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
        let tag = image.rsplit_once(':').expect("a tag").1;
        assert!(tag.contains('.') && tag != "latest", "{image}");
    }
}
