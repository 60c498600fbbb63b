//! Every file under config/recipes, as it stands but for its addresses, against the real thing where one can be had, and
//! else against a stub of the documented contract; the recipe itself says which.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flipback::config;
use flipback::domain::action::{Action, Variables};
use flipback::domain::plan::{ProbeReading, Step};
use flipback::edge::actuators::{native, probe};
use serde_json::{Value, json};

use crate::bench::{Bench, NGINX_RELOAD, SOON, get, has, output, request, word};
use crate::stack::{Proc, free_port, program, wait_until};
use crate::stub::{Stub, merge};

const TOKEN: &str = "a-token-of-some-length";

/// A recipe with its addresses changed; each of them must be in it.
fn recipe(name: &str, changes: &[(&str, String)]) -> String {
    let path = format!("{}/config/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let mut text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in the recipe {name}");
        text = text.replace(from, to);
    }
    text
}

/// A program that the tests bring along (tests/requirements.txt).
fn brought(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/py/bin").join(name);
    assert!(path.exists(), "{} is missing: demo/need tests", path.display());
    path
}

/// It was moved back, and the probe has seen it.
fn proven(view: &Value) {
    assert_eq!(word(view), "rolled_back_unseen", "{view:#}");
    let step = view["steps"].as_array().unwrap().last().unwrap();
    assert!(step["proven_at"].is_number(), "{step:#}");
}

/// The steps of a recipe that is tried without a breach: remedies wait for one.
fn steps_of(bench: &Bench, text: &str) -> Vec<Step> {
    let head = "[prometheus]\nurl = \"http://127.0.0.1:1\"\n[metrics.web]\nrequests = 'r{s=\"$slot\"}'\n[[service]]\nname = \"checkout\"\n\
                metrics = \"web\"\nslots = [\"blue\", \"green\"]\n";
    bench.write("alone.toml", &format!("{head}{text}"));
    let settings =
        config::load(&bench.path("alone.toml"), &config::Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    let vars = Variables::from([("old", "blue".into()), ("new", "green".into()), ("service", "checkout".into())]);
    let resolved = |step: &Step| step.resolve(&vars);
    settings.services[0].plan.steps.iter().chain(&settings.services[0].after_passed.steps).map(resolved).collect()
}

/// One step by hand: its probe before, its action, its probe afterwards.
fn carry_out(step: &Step) -> (ProbeReading, Result<(), String>, ProbeReading) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(20);
    let look = || match &step.probe {
        Some(p) => runtime.block_on(probe::ask(p)),
        None => ProbeReading::Unreadable("no probe".into()),
    };
    let before = look();
    let done = runtime.block_on(async {
        match &step.action {
            Action::Http(call) => native::http::act(call, "checkout-1.s0.a1", limit).await,
            Action::File(set) => native::file::act(set, &"blue".to_owned().try_into().unwrap()),
            Action::Exec(exec) => match flipback::edge::actuators::command::run(exec, step.timeout).await {
                Ok(done) if done.status.success() => Ok(()),
                Ok(done) => Err(format!("{}: {}", done.status, done.stdout)),
                Err(why) => Err(why),
            },
            other => panic!("{other} is tried by the daemon"),
        }
    });
    (before, done, look())
}

fn shows(line: &str) -> ProbeReading {
    ProbeReading::Shows(line.into())
}

#[test]
fn every_recipe_is_a_good_configuration_and_says_what_it_was_shown_against() {
    let dir = format!("{}/config/recipes", env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    let bench = Bench::new();
    for entry in fs::read_dir(&dir).unwrap().flatten() {
        let name = entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
        let text = recipe(&name, &[]);
        assert!(text.contains("# Shown against: ") && text.contains("# Permission"), "{name}");
        // Their own texts tell of slots by version where they need them.
        if text.contains("slots = \"versions\"") {
            let versions = "[prometheus]\nurl = \"http://127.0.0.1:1\"\n[metrics.web]\nrequests = 'r{s=\"$slot\"}'\n[[service]]\n\
                            name = \"checkout\"\nmetrics = \"web\"\nslots = \"versions\"\n";
            bench.write("versions.toml", &format!("{versions}{text}"));
            config::load(&bench.path("versions.toml"), &config::Overrides::default())
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        } else {
            assert!(!steps_of(&bench, &text).is_empty(), "{name}");
        }
        names.insert(name);
    }
    // Whoever adds one adds its test to this file.
    let own = include_str!("recipes.rs");
    for name in &names {
        assert!(own.contains(&format!("\"{name}\"")), "the recipe {name} has no test");
    }
    assert_eq!(names.len(), 18, "{names:?}");
}

// ---------------------------------------------------------------------- proxies

#[test]
fn haproxy_by_its_recipe() {
    let mut bench = Bench::new();
    bench.write(
        "haproxy.cfg",
        "global\n    stats socket @D@/haproxy.sock mode 660 level admin\ndefaults\n    mode http\n    timeout connect 1s\n\
         \x20   timeout client 5s\n    timeout server 5s\nfrontend front\n    bind 127.0.0.1:@FRONT@\n    default_backend checkout\n\
         backend checkout\n    server blue1 127.0.0.1:@BLUE@ disabled\n    server blue2 127.0.0.1:@BLUE@ disabled\n\
         \x20   server green1 127.0.0.1:@GREEN@\n    server green2 127.0.0.1:@GREEN@\n",
    );
    let mut command = Command::new(program("haproxy"));
    command.arg("-db").arg("-f").arg(bench.path("haproxy.cfg"));
    let _proxy = Proc::start("haproxy", bench.dir.path(), &mut command);
    wait_until(SOON, "HAProxy serves", || (get(bench.front, "/") == "green").then_some(()));
    bench.start(&recipe("haproxy", &[("/run/haproxy/flipback.sock", "@D@/haproxy.sock".into())]));
    proven(&bench.rolled_back());
    assert_eq!(get(bench.front, "/"), "blue");
}

#[test]
fn nginx_by_its_recipe() {
    let mut bench = Bench::new();
    let text = recipe(
        "nginx",
        &[
            ("/etc/nginx/flipback/", "@D@/up/".into()),
            ("127.0.0.1:9001", "127.0.0.1:@BLUE@".into()),
            ("127.0.0.1:9002", "127.0.0.1:@GREEN@".into()),
            ("http://127.0.0.1/", "http://127.0.0.1:@FRONT@/".into()),
            // No systemd here: nginx's own way to be reloaded.
            ("[\"/usr/bin/systemctl\", \"reload\", \"nginx.service\"]", NGINX_RELOAD.into()),
        ],
    );
    let nginx =
        bench.nginx("upstream checkout { server 127.0.0.1:@GREEN@; }\nmap $host $checkout_slot { default green; }\n");
    bench.start(&text);
    proven(&bench.rolled_back());
    assert_eq!(get(bench.front, "/"), "blue");
    nginx.signal("-TERM");
}

#[test]
fn envoy_by_its_recipe() {
    let mut bench = Bench::new();
    let admin = free_port();
    let cluster = |name: &str| {
        format!(
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 1s\n    load_assignment: {{ cluster_name: {name}, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: @{}@ }} }} }} }} ] }} ] }}\n",
            name.to_uppercase()
        )
    };
    let text = format!(
        "admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {admin} }} }} }}\n\
         layered_runtime: {{ layers: [ {{ name: base, static_layer: {{ checkout.green: 0 }} }}, {{ name: admin, admin_layer: {{}} }} ] }}\n\
         static_resources:\n  listeners:\n  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: @FRONT@ }} }}\n    filter_chains:\n    - filters:\n\
         \x20     - name: envoy.filters.network.http_connection_manager\n        typed_config:\n\
         \x20         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n\
         \x20         stat_prefix: front\n          http_filters:\n          - name: envoy.filters.http.router\n\
         \x20           typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}\n\
         \x20         route_config:\n            virtual_hosts:\n            - name: all\n              domains: [\"*\"]\n              routes:\n\
         \x20             - match: {{ prefix: \"/\", runtime_fraction: {{ default_value: {{ numerator: 0 }}, runtime_key: checkout.green }} }}\n                route: {{ cluster: green }}\n\
         \x20             - match: {{ prefix: \"/\" }}\n                route: {{ cluster: blue }}\n  clusters:\n{}{}",
        cluster("blue"),
        cluster("green")
    );
    bench.write("envoy.yaml", &text);
    let mut command = Command::new(brought("envoy"));
    command
        .args(["--base-id", &(admin % 3000).to_string(), "--concurrency", "1", "-l", "warning", "-c"])
        .arg(bench.path("envoy.yaml"));
    let _envoy = Proc::start("envoy", bench.dir.path(), &mut command);
    wait_until(SOON, "Envoy serves", || (get(bench.front, "/") == "blue").then_some(()));
    // The deploy tool's own hand.
    assert_eq!(request(admin, "POST", "/runtime_modify?checkout.green=100", "").0, 200);
    wait_until(SOON, "green has the traffic", || (get(bench.front, "/") == "green").then_some(()));
    bench.start(&recipe("envoy", &[("127.0.0.1:9901", format!("127.0.0.1:{admin}"))]));
    proven(&bench.rolled_back());
    assert_eq!(get(bench.front, "/"), "blue");
}

#[test]
fn caddy_by_the_recipe_of_an_admin_api() {
    let mut bench = Bench::new();
    let admin = free_port();
    let config = json!({
        "admin": { "listen": format!("127.0.0.1:{admin}") },
        "apps": { "http": { "servers": { "checkout": {
            "listen": [format!("127.0.0.1:{}", bench.front)],
            "automatic_https": { "disable": true },
            "routes": [{ "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": format!("127.0.0.1:{}", bench.green) }] }] }],
        } } } },
    });
    bench.write("caddy.json", &config.to_string());
    let mut command = Command::new(program("caddy"));
    command
        .arg("run")
        .arg("--config")
        .arg(bench.path("caddy.json"))
        .env("HOME", bench.dir.path())
        .env("XDG_CONFIG_HOME", bench.dir.path());
    let _caddy = Proc::start("caddy", bench.dir.path(), &mut command);
    wait_until(SOON, "Caddy serves", || (get(bench.front, "/") == "green").then_some(()));
    bench.start(&recipe(
        "http-admin",
        &[
            ("127.0.0.1:2019", format!("127.0.0.1:{admin}")),
            ("127.0.0.1:9001", "127.0.0.1:@BLUE@".into()),
            ("127.0.0.1:9002", "127.0.0.1:@GREEN@".into()),
        ],
    ));
    let view = bench.rolled_back();
    proven(&view);
    assert_eq!(get(bench.front, "/"), "blue", "{}", output(&view));
}

/// Contract: Traefik watches the directory of its file provider, and its API shows the services of it.
#[test]
fn traefik_by_its_recipe_against_a_stub() {
    let mut bench = Bench::new();
    fs::create_dir_all(bench.path("dynamic")).unwrap();
    let file = bench.path("dynamic/checkout.yml");
    let read = file.clone();
    let stub = Stub::start(move |asked| {
        assert_eq!(asked.path, "/api/http/services/checkout@file");
        let text = fs::read_to_string(&read).unwrap_or_default();
        let url = text.split("url: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned();
        (
            200,
            json!({ "loadBalancer": { "servers": [{ "url": url }] }, "name": "checkout@file", "provider": "file" })
                .to_string(),
        )
    });
    let text = recipe(
        "traefik",
        &[("/etc/traefik/dynamic", "@D@/dynamic".into()), ("127.0.0.1:8080", format!("127.0.0.1:{}", stub.port))],
    );
    fs::write(
        &file,
        "http:\n  services:\n    checkout: { loadBalancer: { servers: [ { url: \"http://127.0.0.1:9002\" } ] } }\n",
    )
    .unwrap();
    bench.start(&text);
    proven(&bench.rolled_back());
    assert!(fs::read_to_string(&file).unwrap().contains("http://127.0.0.1:9001"));
}

// ---------------------------------------------------------------------- Kubernetes, Istio, Consul

/// Contract: an object of the API server, read whole and patched by a merge patch, behind a bearer token.
fn api_server(object: Value, path: &'static str) -> (Stub, Arc<Mutex<Value>>) {
    let object = Arc::new(Mutex::new(object));
    let mine = object.clone();
    let stub = Stub::start(move |asked| {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return (401, json!({ "kind": "Status", "reason": "Unauthorized" }).to_string());
        }
        if asked.path != path {
            return (404, json!({ "kind": "Status", "reason": "NotFound" }).to_string());
        }
        let mut object = mine.lock().unwrap();
        match (asked.method.as_str(), asked.header("content-type")) {
            ("GET", _) => {}
            ("PATCH", "application/merge-patch+json") => merge(&mut object, &asked.json()),
            _ => return (415, json!({ "kind": "Status", "reason": "UnsupportedMediaType" }).to_string()),
        }
        (200, object.to_string())
    });
    (stub, object)
}

fn kubernetes(name: &str, object: Value, path: &'static str) -> Value {
    let mut bench = Bench::new();
    bench.write("token", TOKEN);
    let (stub, object) = api_server(object, path);
    let text = recipe(
        name,
        &[
            ("https://10.0.0.1:6443", format!("http://127.0.0.1:{}", stub.port)),
            ("/etc/flipback/kubernetes.token", "@D@/token".into()),
            // The stub speaks plain HTTP on loopback.
            ("ca_file = \"/etc/flipback/kubernetes-ca.crt\"\n", String::new()),
        ],
    );
    bench.start(&text);
    let view = bench.rolled_back();
    proven(&view);
    assert!(!view.to_string().contains(TOKEN), "no secret in the story");
    let after = object.lock().unwrap();
    after.clone()
}

#[test]
fn a_kubernetes_service_by_its_recipe_against_a_stub() {
    let service = json!({ "kind": "Service", "spec": { "ports": [{ "port": 80 }], "selector": { "app": "checkout", "slot": "green" } } });
    let after = kubernetes("kubernetes-service", service, "/api/v1/namespaces/shop/services/checkout");
    assert_eq!(after["spec"]["selector"], json!({ "app": "checkout", "slot": "blue" }), "the rest of it is left alone");
    assert_eq!(after["spec"]["ports"][0]["port"], 80);
}

#[test]
fn an_istio_virtual_service_by_its_recipe_against_a_stub() {
    let of = |subset: &str, weight: u32| json!({ "destination": { "host": "checkout", "subset": subset }, "weight": weight });
    let service = json!({ "spec": { "hosts": ["checkout"], "http": [{ "route": [of("green", 100)] }] } });
    let path = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/checkout";
    let after = kubernetes("istio-virtualservice", service, path);
    assert_eq!(after["spec"]["http"], json!([{ "route": [of("blue", 100)] }]));
    assert_eq!(after["spec"]["hosts"], json!(["checkout"]));
}

/// Contract: PUT of the raw value answers true; GET with ?raw answers the value.
#[test]
fn consuls_kv_by_its_recipe_against_a_stub() {
    let mut bench = Bench::new();
    bench.write("token", TOKEN);
    let value = Arc::new(Mutex::new("green".to_owned()));
    let mine = value.clone();
    let stub = Stub::start(move |asked| {
        if asked.header("x-consul-token") != TOKEN {
            return (403, "Permission denied".into());
        }
        let mut value = mine.lock().unwrap();
        match (asked.method.as_str(), asked.path.as_str()) {
            ("PUT", "/v1/kv/checkout/active") => {
                value.clone_from(&asked.body);
                (200, "true".into())
            }
            ("GET", "/v1/kv/checkout/active?raw") => (200, value.clone()),
            _ => (404, String::new()),
        }
    });
    bench.start(&recipe(
        "consul-kv",
        &[("127.0.0.1:8500", format!("127.0.0.1:{}", stub.port)), ("/etc/flipback/consul.token", "@D@/token".into())],
    ));
    proven(&bench.rolled_back());
    assert_eq!(*value.lock().unwrap(), "blue");
    assert_eq!(stub.last("PUT").header("idempotency-key"), "checkout-1.s0.a1");
}

// ---------------------------------------------------------------------- AWS

/// A server that speaks AWS's API, and the command line with credentials of its own.
struct Aws {
    port: u16,
    _server: Proc,
}

impl Aws {
    fn start(bench: &Bench) -> Aws {
        bench.write("aws-config", "[default]\nregion = us-east-1\ncli_pager =\n");
        bench.write("aws-credentials", "[default]\naws_access_key_id = x\naws_secret_access_key = y\n");
        let port = free_port();
        let mut command = Command::new(brought("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let server = Proc::start("moto", bench.dir.path(), &mut command);
        wait_until(SOON, "moto answers", || (request(port, "GET", "/moto-api/data.json", "").0 == 200).then_some(()));
        Aws { port, _server: server }
    }

    fn changes(&self) -> Vec<(&'static str, String)> {
        aws_changes(self.port)
    }

    fn say(&self, bench: &Bench, args: &[&str]) -> String {
        let done = Command::new(program("aws"))
            .args(["--endpoint-url", &format!("http://127.0.0.1:{}", self.port), "--output", "text"])
            .args(args)
            .env("AWS_CONFIG_FILE", bench.path("aws-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", bench.path("aws-credentials"))
            .output()
            .unwrap();
        assert!(done.status.success(), "aws {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }
}

/// Nothing is changed but where AWS is, and where its credentials are.
fn aws_changes(port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("\"/usr/bin/aws\", ", format!("\"/usr/bin/aws\", \"--endpoint-url\", \"http://127.0.0.1:{port}\", ")),
        ("/etc/flipback/aws/config", "@D@/aws-config".into()),
        ("/etc/flipback/aws/credentials", "@D@/aws-credentials".into()),
    ]
}

#[test]
fn a_lambda_alias_by_its_recipe_and_the_real_command_line() {
    let mut bench = Bench::new();
    let aws = Aws::start(&bench);
    let zip = "import sys,zipfile\nfor n in '12':\n  z=zipfile.ZipFile(f'{sys.argv[1]}/f{n}.zip','w'); z.writestr('f.py','def h(e,c): return '+n); z.close()";
    assert!(Command::new("/usr/bin/python3").args(["-c", zip]).arg(bench.dir.path()).status().unwrap().success());
    let policy = "{\"Version\":\"2012-10-17\",\"Statement\":[]}";
    let role = aws.say(
        &bench,
        &["iam", "create-role", "--role-name", "r", "--assume-role-policy-document", policy, "--query", "Role.Arn"],
    );
    let code = |n: u32| format!("fileb://{}", bench.path(&format!("f{n}.zip")).display());
    let create = [
        "lambda",
        "create-function",
        "--function-name",
        "checkout",
        "--runtime",
        "python3.11",
        "--handler",
        "f.h",
        "--publish",
    ];
    aws.say(&bench, &[&create[..], &["--role", &role, "--zip-file", &code(1)]].concat());
    aws.say(
        &bench,
        &["lambda", "update-function-code", "--function-name", "checkout", "--publish", "--zip-file", &code(2)],
    );
    let alias = ["lambda", "create-alias", "--function-name", "checkout", "--name", "live", "--function-version", "2"];
    aws.say(&bench, &alias);
    bench.slots = "slots = \"versions\"\n".into();
    bench.start(&recipe("aws-lambda-alias", &aws.changes()));
    let view = bench.rolled_back_from("1", "2");
    proven(&view);
    let get = ["lambda", "get-alias", "--function-name", "checkout", "--name", "live", "--query", "FunctionVersion"];
    assert_eq!(aws.say(&bench, &get), "1");
    println!("lambda alias: {}", times(&view));

    // A tenth of the traffic that stays on another version is no "it is on version 1".
    let weights = ["--function-version", "1", "--routing-config", "AdditionalVersionWeights={2=0.1}"];
    aws.say(
        &bench,
        &[&["lambda", "update-alias", "--function-name", "checkout", "--name", "live"][..], &weights].concat(),
    );
    let id = view["id"].as_str().unwrap().to_owned();
    wait_until(Duration::from_secs(120), "the drift is noticed", || has(&bench.view(&id), "drift").then_some(()));
    let drift = bench.view(&id)["timeline"].to_string();
    assert!(drift.contains("1 2"), "{drift}");
}

#[test]
fn a_route53_record_by_its_recipe_and_the_real_command_line() {
    let mut bench = Bench::new();
    let aws = Aws::start(&bench);
    let zone = aws.say(
        &bench,
        &[
            "route53",
            "create-hosted-zone",
            "--name",
            "example.org",
            "--caller-reference",
            "1",
            "--query",
            "HostedZone.Id",
        ],
    );
    let zone = zone.trim_start_matches("/hostedzone/").to_owned();
    for slot in ["blue", "green"] {
        let batch = json!({ "Changes": [{ "Action": "UPSERT", "ResourceRecordSet": { "Name": "checkout.example.org", "Type": "CNAME",
            "TTL": 30, "ResourceRecords": [{ "Value": format!("{slot}.example.org") }] } }] });
        bench.write(&format!("{slot}.json"), &batch.to_string());
    }
    let green = format!("file://{}", bench.path("green.json").display());
    aws.say(&bench, &["route53", "change-resource-record-sets", "--hosted-zone-id", &zone, "--change-batch", &green]);
    let mut changes = aws.changes();
    changes.extend([("/etc/flipback/route53/", "@D@/".to_owned()), ("Z123", zone.clone())]);
    bench.start(&recipe("aws-route53", &changes));
    let view = bench.rolled_back();
    proven(&view);
    let query = "ResourceRecordSets[?Type=='CNAME'].ResourceRecords[0].Value";
    let list = ["route53", "list-resource-record-sets", "--hosted-zone-id", &zone, "--query", query];
    assert_eq!(aws.say(&bench, &list), "blue.example.org");
    println!("route53: {}", times(&view));
}

#[test]
fn an_api_gateway_stage_by_its_recipe_and_the_real_command_line() {
    let mut bench = Bench::new();
    let aws = Aws::start(&bench);
    let api = aws.say(&bench, &["apigateway", "create-rest-api", "--name", "checkout", "--query", "id"]);
    let of = ["--rest-api-id", &api];
    let root = aws.say(&bench, &[&["apigateway", "get-resources", "--query", "items[0].id"][..], &of].concat());
    let method = ["--resource-id", &root, "--http-method", "GET"];
    aws.say(&bench, &[&["apigateway", "put-method", "--authorization-type", "NONE"][..], &of, &method].concat());
    aws.say(&bench, &[&["apigateway", "put-integration", "--type", "MOCK"][..], &of, &method].concat());
    let blue = aws.say(&bench, &[&["apigateway", "create-deployment", "--query", "id"][..], &of].concat());
    let green = aws.say(
        &bench,
        &[&["apigateway", "create-deployment", "--stage-name", "prod", "--query", "id"][..], &of].concat(),
    );
    let mut changes = aws.changes();
    changes.extend([("api123", api.clone()), ("dep111", blue.clone()), ("dep222", green)]);
    bench.start(&recipe("aws-api-gateway", &changes));
    proven(&bench.rolled_back());
    let stage = [&["apigateway", "get-stage", "--stage-name", "prod", "--query", "deploymentId"][..], &of].concat();
    assert_eq!(aws.say(&bench, &stage), blue);
}

/// The command line is real; AWS is a stub of the documented REST calls, which moto does not have.
#[test]
fn an_appconfig_flag_by_its_recipe_the_real_command_line_and_a_stub() {
    let bench = Bench::new();
    bench.write("aws-config", "[default]\nregion = us-east-1\ncli_pager =\n");
    bench.write("aws-credentials", "[default]\naws_access_key_id = x\naws_secret_access_key = y\n");
    let deployed = Arc::new(Mutex::new("2".to_owned()));
    let mine = deployed.clone();
    let stub = Stub::start(move |asked| {
        let mut deployed = mine.lock().unwrap();
        match (asked.method.as_str(), asked.path.split('?').next().unwrap_or_default()) {
            ("POST", "/applications/app123/environments/env123/deployments") => {
                assert_eq!(asked.json()["DeploymentStrategyId"], "AppConfig.AllAtOnce");
                *deployed = asked.json()["ConfigurationVersion"].as_str().unwrap().to_owned();
                (
                    201,
                    json!({ "DeploymentNumber": 2, "ConfigurationVersion": *deployed, "State": "DEPLOYING" })
                        .to_string(),
                )
            }
            ("GET", "/applications/app123/environments/env123/deployments") => {
                let newest = json!({ "DeploymentNumber": 2, "ConfigurationVersion": *deployed, "State": "COMPLETE" });
                (200, json!({ "Items": [newest] }).to_string())
            }
            other => (404, json!({ "Message": format!("{other:?}") }).to_string()),
        }
    });
    let text = recipe("aws-appconfig", &aws_changes(stub.port));
    let steps = steps_of(&bench, &text);
    assert!(steps[0].is_remedy());
    let (before, done, after) = carry_out(&steps[0]);
    assert_eq!((before, done, after), (shows("2 COMPLETE"), Ok(()), shows("1 COMPLETE")));
}

/// How long it took from the intent, in words.
fn times(view: &Value) -> String {
    let step = view["steps"].as_array().unwrap().last().unwrap();
    let at = |pointer: &str| step.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let from = at("/intended_at");
    format!(
        "begun after {} ms, ran {} ms, proven after {} ms",
        at("/result/ended/started_at") - from,
        at("/result/ended/ended_at") - at("/result/ended/started_at"),
        at("/proven_at") - from
    )
}

// ---------------------------------------------------------------------- flags

/// Contract: a semantic patch with the flag's environment; GET shows whether it is on there.
#[test]
fn a_flag_like_launchdarklys_by_its_recipe_against_a_stub() {
    let bench = Bench::new();
    bench.write("token", TOKEN);
    let on = Arc::new(Mutex::new(true));
    let mine = on.clone();
    let stub = Stub::start(move |asked| {
        if asked.header("authorization") != TOKEN {
            return (401, json!({ "code": "unauthorized" }).to_string());
        }
        let mut on = mine.lock().unwrap();
        let patch = asked.json();
        match (asked.method.as_str(), asked.path.as_str()) {
            ("PATCH", "/api/v2/flags/shop/new-checkout") => {
                assert!(asked.header("content-type").contains("domain-model=launchdarkly.semanticpatch"));
                assert_eq!(patch["environmentKey"], "production");
                *on = patch["instructions"][0]["kind"] != "turnFlagOff";
            }
            ("GET", "/api/v2/flags/shop/new-checkout?env=production") => {}
            _ => return (404, "{}".into()),
        }
        (200, json!({ "key": "new-checkout", "environments": { "production": { "on": *on } } }).to_string())
    });
    let text = recipe(
        "launchdarkly",
        &[
            ("https://app.launchdarkly.com", format!("http://127.0.0.1:{}", stub.port)),
            ("/etc/flipback/launchdarkly.token", "@D@/token".into()),
        ],
    );
    let (before, done, after) = carry_out(&steps_of(&bench, &text)[0]);
    assert_eq!((before, done, after), (shows("true"), Ok(()), shows("false")));
}

#[test]
fn a_flag_in_a_file_by_its_recipe() {
    let bench = Bench::new();
    bench.write("new-checkout", "on\n");
    let text = recipe("file-flag", &[("/etc/checkout/flags/new-checkout", "@D@/new-checkout".into())]);
    let (before, done, after) = carry_out(&steps_of(&bench, &text)[0]);
    assert_eq!((before, done, after), (shows("on"), Ok(()), shows("off")));
    assert_eq!(fs::read_to_string(bench.path("new-checkout")).unwrap(), "off\n");
}

// ---------------------------------------------------------------------- hosts

/// The unit's own side: `flipback unit-step` finds the step in the configuration that root owns. systemd itself is left
/// out here, and Kamal is a stub of `kamal rollback VERSION`.
#[test]
fn kamal_by_its_recipe_against_a_stub() {
    let bench = Bench::new();
    bench.write("kamal", "#!/bin/sh\n[ \"$1\" = rollback ] && [ \"$3\" = --config-file ] && [ \"$FLIPBACK_OLD\" = \"$2\" ] && echo \"$2\" > @D@/version\n");
    let mut mode = fs::metadata(bench.path("kamal")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(bench.path("kamal"), mode).unwrap();
    let text = recipe("kamal", &[("/usr/local/bin/kamal", "@D@/kamal".into())]);
    let head = "[prometheus]\nurl = \"http://127.0.0.1:1\"\n[metrics.web]\nrequests = 'r{s=\"$slot\"}'\n[[service]]\nname = \"checkout\"\n\
                metrics = \"web\"\nslots = \"versions\"\n";
    bench.write("flipback.toml", &format!("{head}{text}"));
    let run = |instance: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.args(["unit-step", instance, "--config"]).arg(bench.path("flipback.toml"));
        command.output().unwrap()
    };
    assert!(run("checkout+v1.2+v1.3+kamal").status.success());
    assert_eq!(fs::read_to_string(bench.path("version")).unwrap().trim(), "v1.2");
    // Only what is written there can be asked for.
    for (instance, why) in [
        ("checkout+v1.2+v1.3+other", "no step \"other\""),
        ("search+v1.2+v1.3+kamal", "no service search"),
        ("checkout+v1.2", "not SERVICE+OLD+NEW+STEP"),
        ("checkout+--help+v1.3+kamal", "--help"),
    ] {
        let done = run(instance);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(why), "{instance}: {said}");
    }
}

/// systemd is not process 1 here: a stub of `systemctl start UNIT` starts what the unit would, and ends what it excludes.
#[test]
fn a_swap_of_units_by_its_recipe_against_a_stub() {
    let mut bench = Bench::new();
    bench.write("slot", "green");
    let read = bench.path("slot");
    let stub = Stub::start(move |_| (200, fs::read_to_string(&read).unwrap_or_default()));
    bench.write(
        "systemctl",
        "#!/bin/sh\n[ \"$1\" = start ] || exit 5\nslot=${2#checkout@}; printf %s \"${slot%.service}\" > @D@/slot\n",
    );
    let mut mode = fs::metadata(bench.path("systemctl")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(bench.path("systemctl"), mode).unwrap();
    bench.start(&recipe(
        "systemd-swap",
        &[("/usr/bin/systemctl", "@D@/systemctl".into()), ("127.0.0.1:9000", format!("127.0.0.1:{}", stub.port))],
    ));
    proven(&bench.rolled_back());
    assert_eq!(fs::read_to_string(bench.path("slot")).unwrap(), "blue");
}

#[test]
fn job_leaders_change_hands_by_the_recipe_in_a_real_postgresql() {
    let mut bench = Bench::new();
    let bin = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().next().expect("postgresql").path().join("bin");
    let port = free_port();
    let data = bench.path("pg");
    fs::create_dir(&data).unwrap();
    let open = |path: &Path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    open(bench.dir.path());
    open(&data);
    // PostgreSQL refuses to be root.
    let as_postgres = |program: &str| {
        let mut command = Command::new("/usr/bin/setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(bin.join(program))
            .current_dir(bench.dir.path());
        command
    };
    let made = as_postgres("initdb").args(["--auth=trust", "--no-sync", "-D"]).arg(data.join("data")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut server = as_postgres("postgres");
    server.arg("-D").arg(data.join("data")).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""]);
    let postgres = Proc::start("postgres", bench.dir.path(), &mut server);
    let sql = |text: &str| {
        let mut command = Command::new(program("psql"));
        command.args(["-X", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-tA", "-c", text]);
        command.output().unwrap()
    };
    wait_until(SOON, "PostgreSQL answers", || sql("SELECT 1").status.success().then_some(()));
    assert!(sql("CREATE TABLE job_leader (service text PRIMARY KEY, slot text NOT NULL); INSERT INTO job_leader VALUES ('checkout', 'green')").status.success());
    bench.write("job-leader.sql", "UPDATE job_leader SET slot = :'slot' WHERE service = 'checkout';\n");
    bench.write("pg_service.conf", &format!("[jobs]\nhost=127.0.0.1\nport={port}\nuser=postgres\ndbname=postgres\n"));
    bench
        .start(&recipe("job-leader", &[("/etc/flipback/", "@D@/".into()), ("wait = \"10s\"", "wait = \"1s\"".into())]));
    let view = bench.rolled_back();
    proven(&view);
    assert!(has(&view, "waits"), "{view:#}");
    assert_eq!(String::from_utf8_lossy(&sql("SELECT slot FROM job_leader").stdout).trim(), "blue");
    postgres.signal("-INT");
}

/// Contract: Grafana takes an annotation by POST and answers with its id.
#[test]
fn what_follows_a_passed_soak_by_its_recipe_against_a_stub() {
    let bench = Bench::new();
    bench.write("token", TOKEN);
    let stub = Stub::start(|asked| match (asked.path.as_str(), asked.header("authorization")) {
        ("/api/annotations", auth) if auth == format!("Bearer {TOKEN}") => {
            (200, json!({ "message": "Annotation added", "id": 1 }).to_string())
        }
        _ => (401, "{}".into()),
    });
    bench.write("tear-down", "#!/bin/sh\necho stopped > @D@/$1.state\n");
    bench.write("slot-state", "#!/bin/sh\ncat @D@/$1.state\n");
    bench.write("blue.state", "running\n");
    for name in ["tear-down", "slot-state"] {
        fs::set_permissions(bench.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let text = recipe(
        "after-passed",
        &[
            ("https://grafana.example.org", format!("http://127.0.0.1:{}", stub.port)),
            ("/etc/flipback/grafana.token", "@D@/token".into()),
            ("/usr/local/bin/", "@D@/".into()),
        ],
    );
    let steps = steps_of(&bench, &text);
    assert_eq!(carry_out(&steps[0]).1, Ok(()));
    assert_eq!(stub.last("POST").json()["text"], "checkout: green passed its soak");
    assert_eq!(carry_out(&steps[1]), (shows("running"), Ok(()), shows("stopped")));
}
