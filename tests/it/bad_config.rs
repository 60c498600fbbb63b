//! Bad configurations: each case names the class of mistake that it guards, and its message is a
//! snapshot, written for somebody who reads it at three in the morning.

use flipback::config::parse;

/// A good file; each case changes one thing in it.
const GOOD: &str = r#"
[prometheus]
url = "http://127.0.0.1:9090"

[email]
smarthost = "127.0.0.1:25"
from = "flipback@example.org"
to = ["oncall@example.org"]

[metrics.web]
requests = 'http_requests_total{service="$service",env="$slot"}'
errors   = 'http_requests_total{service="$service",env="$slot",code=~"5.."}'
latency  = 'http_request_duration_seconds_bucket{service="$service",env="$slot"}'

[[service]]
name = "checkout"
metrics = "web"
mode = "auto"
slots.blue  = { health = { http = "http://127.0.0.1:9001/healthz" } }
slots.green = { health = { http = "http://127.0.0.1:9002/healthz" } }
soak = { duration = "30m", tick = "15s" }
limits = { ratio = 1.5 }

[[service.rollback]]
name = "haproxy"
exec = ["/usr/local/bin/switch-traffic", "$old"]
timeout = "30s"
probe = { exec = ["/usr/local/bin/active-slot"], expect = "$old" }
"#;

/// (class of mistake, what is replaced, by what)
const CASES: &[(&str, &str, &str)] = &[
    // where counts come from
    ("a source that is none", "[metrics.web]", "[metrics.web]\nsource = \"scraped\""),
    ("scraped, and no page", "[metrics.web]", "[metrics.web]\nsource = \"scrape\""),
    ("a page, and nobody reads it", "blue  = { health", "blue  = { scrape = \"http://127.0.0.1:9001/metrics\", health"),
    (
        "a page twice",
        "blue  = { health",
        "blue  = { scrape = [\"http://127.0.0.1:1/metrics\", \"http://127.0.0.1:1/metrics\"], health",
    ),
    ("a page that is no address", "blue  = { health", "blue  = { scrape = \"127.0.0.1/metrics\", health"),
    ("scraped PromQL", "[metrics.web]", "[metrics.web]\nsource = \"scrape\"\ncustom = { cpu = 'avg(x)' }"),
    ("a normal from nowhere", "[metrics.web]", "[metrics.web]\nsource = \"scrape\"\nnormal = \"guessed\""),
    ("counted by a command that is none", "requests = 'http", "source = \"command\"\n#"),
    ("a command by its name alone", "requests = 'http", "source = \"command\"\nexec = [\"counts\"]\n#"),
    ("a counts variable that is none", "requests = 'http", "source = \"command\"\nexec = [\"/c\", \"--at=$form\"]\n#"),
    ("cells of a day", "requests = 'http", "source = \"command\"\nexec = [\"/c\"]\nevery = \"1d\"\n#"),
    (
        "a secret in a header",
        "requests = 'http",
        "source = \"http\"\nhttp = { url = \"https://h/c\", headers = { Authorization = \"Bearer x\" } }\n#",
    ),
    (
        "a secret in the clear",
        "requests = 'http",
        "source = \"http\"\nhttp = { url = \"http://h/c\", secret_headers = [{ name = \"K\", file = \"/k\" }] }\n#",
    ),
    (
        "an answer that is no template",
        "requests = 'http",
        "source = \"http\"\nanswer = \"{% for %}\"\nhttp = { url = \"https://h/c\" }\n#",
    ),
    // Prometheus in its variants
    ("no server that is asked", "[prometheus]\nurl = \"http://127.0.0.1:9090\"\n", ""),
    ("more wanted than there are", "[prometheus]", "[prometheus]\nquorum = 2"),
    ("a replica of itself", "[prometheus]", "[prometheus]\nreplicas = [\"http://127.0.0.1:9090/\"]"),
    ("a certificate without its key", "[prometheus]", "[prometheus]\nclient_cert_file = \"/c.pem\""),
    ("a key without its certificate", "[prometheus]", "[prometheus]\nclient_key_file = \"/k.pem\""),
    ("a parameter that is none", "[prometheus]", "[prometheus]\nparams = { partial_respnse = \"false\" }"),
    ("a login in a header", "[prometheus]", "[prometheus]\nheaders = { authorization = \"Basic eA==\" }"),
    // steps: what they do, how they are read back, the ladder
    ("no action", "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]\n", ""),
    (
        "two actions",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]\nhttp = { url = \"http://127.0.0.1:1/x\" }",
    ),
    (
        "misspelt action",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxi = { socket = \"/s\", backend = \"app\" }",
    ),
    (
        "a slot without servers",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxy = { socket = \"/s\", backend = \"app\", servers = { blue = \"b1\" } }",
    ),
    (
        "a slot that is none",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxy = { socket = \"/s\", backend = \"app\", servers = { blue = \"b1\", green = \"g1\", red = \"r1\" } }",
    ),
    (
        "a server of two slots",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxy = { socket = \"/s\", backend = \"app\", servers = { blue = \"b1\", green = \"b1\" } }",
    ),
    (
        "a name that could end a command",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxy = { socket = \"/s\", backend = \"app\", servers = { blue = \"b1; shutdown\", green = \"g1\" } }",
    ),
    (
        "not a way to take out",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxy = { socket = \"/s\", backend = \"app\", others = \"kill\" }",
    ),
    (
        "neither socket nor tcp",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxy = { backend = \"app\" }",
    ),
    (
        "misspelt key",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxy = { socket = \"/s\", backend = \"app\", otters = \"maint\" }",
    ),
    (
        "relative path",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "file = { path = \"up.conf\", content = { blue = \"a\", green = \"b\" } }",
    ),
    ("no content", "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]", "file = { path = \"/up.conf\" }"),
    (
        "content and target",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "file = { path = \"/up.conf\", content = \"x\", target = \"/y\" }",
    ),
    (
        "a slot without content",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "file = { path = \"/up.conf\", content = { blue = \"a\" } }",
    ),
    (
        "empty content",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "file = { path = \"/up.conf\", content = { blue = \"a\", green = \" \" } }",
    ),
    (
        "misspelt key",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "file = { path = \"/up.conf\", content = \"x\", mode = \"0644\" }",
    ),
    (
        "nothing that shows what is served",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "nginx = { path = \"/up.conf\", content = { blue = \"a\", green = \"b\" } }",
    ),
    (
        "not an absolute program",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "nginx = { path = \"/up.conf\", content = { blue = \"a\", green = \"b\" }, served = { url = \"http://127.0.0.1/s\" }, reload = [\"nginx\"] }",
    ),
    ("not a URL", "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]", "http = { url = \"admin/active\" }"),
    (
        "not a method",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { method = \"GET\", url = \"http://127.0.0.1/x\" }",
    ),
    (
        "an unknown variable in a URL",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://127.0.0.1/x/$odl\" }",
    ),
    (
        "a lonely dollar in a body",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://127.0.0.1/x\", body = \"costs $ 5\" }",
    ),
    (
        "body and json",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://127.0.0.1/x\", body = \"a\", json = { a = 1 } }",
    ),
    (
        "secret inline",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://127.0.0.1/x\", headers = { Authorization = \"Bearer abc\" } }",
    ),
    (
        "secret inline",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://127.0.0.1/x\", bearer_token = \"abc\" }",
    ),
    (
        "secret in the clear",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://admin.example.org/x\", bearer_token_file = \"/t\" }",
    ),
    (
        "not a header",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://127.0.0.1/x\", headers = { \"X Y\" = \"1\" } }",
    ),
    (
        "header injection",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://127.0.0.1/x\", headers = { X = \"a\\r\\nEvil: 1\" } }",
    ),
    (
        "not a status",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "http = { url = \"http://127.0.0.1/x\", expect_status = [20] }",
    ),
    (
        "header and pointer",
        "probe = { exec = [\"/usr/local/bin/active-slot\"], expect = \"$old\" }",
        "probe = { http = { url = \"http://127.0.0.1/x\", header = \"X-Slot\", pointer = \"/slot\" } }",
    ),
    (
        "not a pointer",
        "probe = { exec = [\"/usr/local/bin/active-slot\"], expect = \"$old\" }",
        "probe = { http = { url = \"http://127.0.0.1/x\", pointer = \"slot\" } }",
    ),
    (
        "required value is no value",
        "probe = { exec = [\"/usr/local/bin/active-slot\"], expect = \"$old\" }",
        "probe = { http = { url = \"http://127.0.0.1/x\", require = { \"/a\" = [1] } } }",
    ),
    (
        "two looks",
        "probe = { exec = [\"/usr/local/bin/active-slot\"], expect = \"$old\" }",
        "probe = { exec = [\"/bin/a\"], http = { url = \"http://127.0.0.1/x\" } }",
    ),
    ("a remedy that shows a slot", "timeout = \"30s\"", "heals_within = \"30s\""),
    (
        "a remedy in a flag's plan",
        "[[service.rollback]]",
        "[[service.flags.x]]\nname = \"kill\"\nexec = [\"/bin/k\", \"$old\"]\nheals_within = \"30s\"\nprobe = { exec = [\"/bin/f\"], expect = \"off\" }\n\n[[service.rollback]]",
    ),
    (
        "only remedies",
        "probe = { exec = [\"/usr/local/bin/active-slot\"], expect = \"$old\" }",
        "heals_within = \"30s\"\nprobe = { exec = [\"/usr/local/bin/flag\"], expect = \"off\" }",
    ),
    ("no probe shows the slot", "expect = \"$old\"", "expect = \"good\""),
    ("not a condition", "timeout = \"30s\"", "when = \"sometimes\""),
    ("not a way to fail", "timeout = \"30s\"", "on_failure = \"ignore\""),
    ("limit out of range", "timeout = \"30s\"", "limit = \"3h\""),
    ("wait out of range", "timeout = \"30s\"", "wait = \"2h\""),
    (
        "a unit for an action of flipback's own",
        "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]",
        "haproxy = { socket = \"/s\", backend = \"app\" }\nrun_as = \"unit\"",
    ),
    ("not a way to run", "timeout = \"30s\"", "run_as = \"root\""),
    ("secret in the environment", "timeout = \"30s\"", "env = { AWS_SECRET_ACCESS_KEY = \"abc\" }"),
    ("a variable of flipback's own", "timeout = \"30s\"", "env = { FLIPBACK_OLD = \"blue\" }"),
    ("not a variable", "timeout = \"30s\"", "env = { \"a b\" = \"1\" }"),
    ("a word for a slot that is none", "timeout = \"30s\"", "words = { blau = \"b1\" }"),
    (
        "two steps of one name",
        "[[service.rollback]]\nname",
        "[[service.rollback]]\nname = \"haproxy\"\nexec = [\"/bin/x\"]\nprobe = { exec = [\"/bin/y\"] }\n\n[[service.rollback]]\nname",
    ),
    ("empty name", "name = \"haproxy\"", "name = \"\""),
    (
        "steps after a passed soak",
        "[[service.rollback]]",
        "[[service.after_passed]]\nexec = [\"/bin/x\"]\n\n[[service.rollback]]",
    ),
    ("not a schedule", "[email]", "[drills]\ncron = \"every day\"\n\n[email]"),
    ("misspelt key", "[email]", "[drills]\ncorn = \"none\"\n\n[email]"),
    // prometheus
    ("missing table", "[prometheus]\nurl = \"http://127.0.0.1:9090\"\n", ""),
    ("missing key", "url = \"http://127.0.0.1:9090\"\n", ""),
    ("misspelt table", "[prometheus]", "[promtheus]"),
    ("misspelt key", "url = \"http", "ulr = \"http"),
    ("not a URL", "\"http://127.0.0.1:9090\"", "\"prometheus:9090/x y\""),
    ("wrong scheme", "\"http://127.0.0.1:9090\"", "\"ftp://127.0.0.1\""),
    ("secret in a URL", "\"http://127.0.0.1:9090\"", "\"http://me:secret@127.0.0.1:9090\""),
    ("wrong type", "\"http://127.0.0.1:9090\"", "9090"),
    ("duration without a unit", "url = \"http://127.0.0.1:9090\"", "url = \"http://127.0.0.1:9090\"\ntimeout = 5"),
    ("duration out of range", "url = \"http://127.0.0.1:9090\"", "url = \"http://127.0.0.1:9090\"\ntimeout = \"5m\""),
    ("bad duration", "url = \"http://127.0.0.1:9090\"", "url = \"http://127.0.0.1:9090\"\nsettle = \"2 seconds\""),
    ("bad duration", "url = \"http://127.0.0.1:9090\"", "url = \"http://127.0.0.1:9090\"\nbackfill = \"30d\""),
    ("bad external URL", "url = \"http://127.0.0.1:9090\"", "url = \"http://127.0.0.1:9090\"\nexternal_url = \"here\""),
    ("secret inline", "url = \"http://127.0.0.1:9090\"", "url = \"http://127.0.0.1:9090\"\nbearer_token = \"abc\""),
    (
        "relative path",
        "url = \"http://127.0.0.1:9090\"",
        "url = \"http://127.0.0.1:9090\"\nbearer_token_file = \"token\"",
    ),
    (
        "secret inline",
        "url = \"http://127.0.0.1:9090\"",
        "url = \"http://127.0.0.1:9090\"\nbasic_auth = { username = \"a\", password = \"b\" }",
    ),
    (
        "conflicting keys",
        "url = \"http://127.0.0.1:9090\"",
        "url = \"http://127.0.0.1:9090\"\nbearer_token_file = \"/t\"\nbasic_auth = { username = \"a\", password_file = \"/p\" }",
    ),
    // detectors
    ("no way to look", "[[service.rollback]]", "[[service.detect]]\nevery = \"1s\"\n\n[[service.rollback]]"),
    (
        "two ways to look",
        "[[service.rollback]]",
        "[[service.detect]]\nfile = \"/x\"\nsymlink = \"/y\"\n\n[[service.rollback]]",
    ),
    (
        "misspelt key",
        "[[service.rollback]]",
        "[[service.detect]]\nhaproxi = { socket = \"/s\", backend = \"app\" }\n\n[[service.rollback]]",
    ),
    (
        "missing key",
        "[[service.rollback]]",
        "[[service.detect]]\nhaproxy = { socket = \"/s\" }\n\n[[service.rollback]]",
    ),
    (
        "conflicting keys",
        "[[service.rollback]]",
        "[[service.detect]]\nhaproxy = { socket = \"/s\", tcp = \"127.0.0.1:1\", backend = \"app\" }\n\n[[service.rollback]]",
    ),
    ("relative path", "[[service.rollback]]", "[[service.detect]]\nfile = \"upstream.conf\"\n\n[[service.rollback]]"),
    (
        "unknown slot",
        "[[service.rollback]]",
        "[[service.detect]]\nfile = \"/x\"\nwords = { grene = \"9002\" }\n\n[[service.rollback]]",
    ),
    (
        "empty word",
        "[[service.rollback]]",
        "[[service.detect]]\nfile = \"/x\"\nwords = { green = \"\" }\n\n[[service.rollback]]",
    ),
    (
        "not PromQL",
        "[[service.rollback]]",
        "[[service.detect]]\npromql = { query = 'sum by (env', label = \"env\" }\n\n[[service.rollback]]",
    ),
    ("missing key", "[[service.rollback]]", "[[service.detect]]\npromql = { query = 'up' }\n\n[[service.rollback]]"),
    (
        "too often",
        "[[service.rollback]]",
        "[[service.detect]]\nsymlink = \"/x\"\nevery = \"1ms\"\n\n[[service.rollback]]",
    ),
    (
        "a backend that is a command",
        "[[service.rollback]]",
        "[[service.detect]]\nhaproxy = { socket = \"/s\", backend = \"app; shutdown\" }\n\n[[service.rollback]]",
    ),
    (
        "versions of weights",
        "[[service.rollback]]",
        "[[service.detect]]\nhaproxy = { socket = \"/s\", backend = \"app\" }\nshows = \"version\"\n\n[[service.rollback]]",
    ),
    (
        "twice the same",
        "[[service.rollback]]",
        "[[service.detect]]\nsymlink = \"/x\"\n\n[[service.detect]]\nsymlink = \"/y\"\n\n[[service.rollback]]",
    ),
    // flags
    (
        "no probe in auto",
        "[[service.rollback]]",
        "[[service.flags.new-flow]]\nname = \"kill\"\nexec = [\"/bin/kill-flag\", \"$old\"]\n\n[[service.rollback]]",
    ),
    (
        "not a flag's name",
        "[[service.rollback]]",
        "[[service.flags.\"new flow\"]]\nname = \"kill\"\nexec = [\"/bin/kill-flag\", \"$old\"]\nprobe = { exec = [\"/bin/flag\"] }\n\n[[service.rollback]]",
    ),
    // webhooks
    (
        "missing keys",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\n\n[metrics.web]",
    ),
    (
        "unknown sender",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"githug\"\nsecret_file = \"/etc/flipback/s\"\n\n\n[metrics.web]",
    ),
    (
        "secret inline",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\nsecret = \"abc\"\n\n[metrics.web]",
    ),
    (
        "not a path's name",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci/cd\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\n\n\n[metrics.web]",
    ),
    (
        "unknown service",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\nservices = [\"chekout\"]\n\n[metrics.web]",
    ),
    (
        "unknown field",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\nmap = { servce = \"checkout\" }\n\n[metrics.web]",
    ),
    (
        "broken template",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\nmap = { service = \"{{ repository.name\" }\n\n[metrics.web]",
    ),
    (
        "broken expression",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\nwhen = \"environment = production\"\n\n[metrics.web]",
    ),
    (
        "another's proof",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\nsignature = { header = \"X-S\" }\n\n[metrics.web]",
    ),
    (
        "two proofs",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"generic\"\nsecret_file = \"/etc/flipback/s\"\nmap = { service = \"a\", new = \"b\" }\nsignature = { header = \"X-S\" }\ntoken_header = \"X-T\"\n\n[metrics.web]",
    ),
    (
        "nothing is mapped",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"generic\"\nsecret_file = \"/etc/flipback/s\"\n\n\n[metrics.web]",
    ),
    (
        "not a header",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"generic\"\nsecret_file = \"/etc/flipback/s\"\nmap = { service = \"a\", new = \"b\" }\ntoken_header = \"X T:\"\n\n[metrics.web]",
    ),
    (
        "acts without alerts",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\nacts = true\n\n[metrics.web]",
    ),
    (
        "twice the same",
        "[metrics.web]",
        "[api]\nlisten = \"127.0.0.1:9747\"\ntoken_file = \"/t\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\n\n[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\n\n\n[metrics.web]",
    ),
    (
        "no listener",
        "[metrics.web]",
        "[[webhook]]\nname = \"ci\"\nfrom = \"github\"\nsecret_file = \"/etc/flipback/s\"\n\n[metrics.web]",
    ),
    // email
    ("no port", "\"127.0.0.1:25\"", "\"mail.example.org\""),
    ("not an address", "\"flipback@example.org\"", "\"flipback\""),
    ("header injection", "\"flipback@example.org\"", "\"a@b.c\\r\\nBcc: x@y.z\""),
    ("empty list", "[\"oncall@example.org\"]", "[]"),
    ("wrong type in a list", "[\"oncall@example.org\"]", "[\"oncall@example.org\", 7]"),
    ("not a list", "[\"oncall@example.org\"]", "\"oncall@example.org\""),
    ("unknown word", "smarthost = \"127.0.0.1:25\"", "smarthost = \"127.0.0.1:25\"\ntls = \"startls\""),
    (
        "secret inline",
        "smarthost = \"127.0.0.1:25\"",
        "smarthost = \"127.0.0.1:25\"\nusername = \"a\"\npassword = \"b\"",
    ),
    ("half a login", "smarthost = \"127.0.0.1:25\"", "smarthost = \"127.0.0.1:25\"\nusername = \"a\""),
    ("half a login", "smarthost = \"127.0.0.1:25\"", "smarthost = \"127.0.0.1:25\"\npassword_file = \"/p\""),
    // api, log, state_dir
    ("off loopback", "[email]", "[api]\nlisten = \"0.0.0.0:9747\"\ntoken_file = \"/t\"\n\n[email]"),
    ("half of TLS", "[email]", "[api]\nlisten = \"127.0.0.1:9747\"\ntls_cert_file = \"/c\"\n\n[email]"),
    ("callers' certificates without TLS", "[email]", "[api]\nclient_ca_file = \"/c\"\n\n[email]"),
    (
        "everything open to the network",
        "[email]",
        "[api]\nlisten = \"0.0.0.0:9747\"\ntls_cert_file = \"/c\"\ntls_key_file = \"/k\"\npage = \"open\"\n\n[email]",
    ),
    ("a relative certificate", "[email]", "[api]\ntls_cert_file = \"c.pem\"\ntls_key_file = \"/k\"\n\n[email]"),
    ("an unknown socket role", "[email]", "[api]\nsocket_role = \"root\"\n\n[email]"),
    ("a rule for nobody", "[email]", "[api]\nlocal = [{ role = \"read\" }]\n\n[email]"),
    ("a rule for both", "[email]", "[api]\nlocal = [{ user = \"a\", group = \"b\", role = \"read\" }]\n\n[email]"),
    ("a rule without a role", "[email]", "[api]\nlocal = [{ user = \"jenkins\" }]\n\n[email]"),
    (
        "a rule with a slip in its role",
        "[email]",
        "[api]\nlocal = [{ user = \"jenkins\", role = \"operator\" }]\n\n[email]",
    ),
    (
        "a rule for a service that is not there",
        "[email]",
        "[api]\nlocal = [{ user = \"jenkins\", role = \"report\", services = [\"chekout\"] }]\n\n[email]",
    ),
    (
        "a rule for no service",
        "[email]",
        "[api]\nlocal = [{ user = \"jenkins\", role = \"report\", services = [] }]\n\n[email]",
    ),
    ("no name of a user", "[email]", "[api]\nlocal = [{ user = \"a:b\", role = \"read\" }]\n\n[email]"),
    ("a role of a number", "[email]", "[api]\nlocal = [{ user = \"jenkins\", role = 3 }]\n\n[email]"),
    ("a rule that is none", "[email]", "[api]\nlocal = [\"jenkins\"]\n\n[email]"),
    (
        "a strange key of a rule",
        "[email]",
        "[api]\nlocal = [{ user = \"jenkins\", role = \"read\", service = \"checkout\" }]\n\n[email]",
    ),
    ("no name of a variable", "[email]", "[api]\ntoken_file = \"env:A-B\"\n\n[email]"),
    ("no name of a credential", "[email]", "[api]\ntoken_file = \"credential:../x\"\n\n[email]"),
    ("a heartbeat to nobody", "[email]", "[heartbeat]\nevery = \"1m\"\n\n[email]"),
    ("a heartbeat to two", "[email]", "[heartbeat]\nurl = \"https://hc.example.org/x\"\nurl_file = \"/u\"\n\n[email]"),
    (
        "a heartbeat all the time",
        "[email]",
        "[heartbeat]\nurl = \"https://hc.example.org/x\"\nevery = \"10ms\"\n\n[email]",
    ),
    ("a heartbeat to no address", "[email]", "[heartbeat]\nurl = \"hc.example.org\"\n\n[email]"),
    ("a heartbeat with a password", "[email]", "[heartbeat]\nurl = \"https://a:b@hc.example.org/x\"\n\n[email]"),
    ("not an address", "[email]", "[api]\nlisten = \"localhost\"\ntoken_file = \"/t\"\n\n[email]"),
    ("unknown page", "[email]", "[api]\npage = \"public\"\n\n[email]"),
    ("secret inline", "[email]", "[api]\ntoken = \"abc\"\n\n[email]"),
    ("relative path", "[email]", "[api]\nsocket = \"control.sock\"\n\n[email]"),
    ("unknown word", "[email]", "[log]\nformat = \"text\"\n\n[email]"),
    ("bad level", "[email]", "[log]\nlevel = \"loud=very=much\"\n\n[email]"),
    ("relative path", "\n[prometheus]", "state_dir = \"state\"\n[prometheus]"),
    ("wrong type", "\n[prometheus]", "state_dir = true\n[prometheus]"),
    ("key in the wrong table", "[email]", "[email]\nstate_dir = \"/x\""),
    // metrics
    (
        "a function, not a selector",
        "requests = 'http_requests_total{service=\"$service\",env=\"$slot\"}'",
        "requests = 'rate(http_requests_total[5m])'",
    ),
    (
        "a range selector",
        "requests = 'http_requests_total{service=\"$service\",env=\"$slot\"}'",
        "requests = 'http_requests_total[5m]'",
    ),
    (
        "broken PromQL",
        "requests = 'http_requests_total{service=\"$service\",env=\"$slot\"}'",
        "requests = 'http_requests_total{service='",
    ),
    (
        "no metric",
        "requests = 'http_requests_total{service=\"$service\",env=\"$slot\"}'",
        "requests = '{env=\"$slot\"}'",
    ),
    ("an offset", "env=\"$slot\"}'\nerrors", "env=\"$slot\"} offset 5m'\nerrors"),
    (
        "regex on the name",
        "requests = 'http_requests_total{service=\"$service\",env=\"$slot\"}'",
        "requests = '{__name__=~\"http.*\",env=\"$slot\"}'",
    ),
    ("unknown variable", "env=\"$slot\"}'\nerrors", "env=\"$colour\"}'\nerrors"),
    ("not a histogram", "'http_request_duration_seconds_bucket", "'http_request_duration_seconds"),
    (
        "selectors disagree on $slot",
        "latency  = 'http_request_duration_seconds_bucket{service=\"$service\",env=\"$slot\"}'",
        "latency  = 'http_request_duration_seconds_bucket{service=\"$service\"}'",
    ),
    (
        "native, but nothing named",
        "latency  = 'http_request_duration_seconds_bucket{service=\"$service\",env=\"$slot\"}'",
        "latency  = { nativ = 'http_request_duration_seconds{service=\"$service\",env=\"$slot\"}' }",
    ),
    ("missing selector", "requests = 'http_requests_total{service=\"$service\",env=\"$slot\"}'\n", ""),
    ("unknown template", "metrics = \"web\"", "metrics = \"wbe\""),
    ("unknown key", "latency  =", "latencies ="),
    ("broken custom query", "[[service]]", "[metrics.web.custom]\ncpu = 'sum(rate(cpu['\n\n[[service]]"),
    // service
    ("no service", "[[service]]", "[service]"),
    ("missing name", "name = \"checkout\"\n", ""),
    ("bad name", "\"checkout\"", "\"check out\""),
    ("shell in a name", "\"checkout\"", "\"$(reboot)\""),
    ("empty name", "\"checkout\"", "\"\""),
    ("unknown mode", "\"auto\"", "\"automatic\""),
    ("misspelt key", "mode = \"auto\"", "moed = \"auto\""),
    ("misspelt rule", "mode = \"auto\"", "mode = \"auto\"\nrule = \"evidense\""),
    ("unknown rule", "mode = \"auto\"", "mode = \"auto\"\nrule = \"gut feeling\""),
    ("unknown control", "mode = \"auto\"", "mode = \"auto\"\ncontrols = [\"serch\"]"),
    ("its own control", "mode = \"auto\"", "mode = \"auto\"\ncontrols = [\"checkout\"]"),
    ("control is no list", "mode = \"auto\"", "mode = \"auto\"\ncontrols = \"search\""),
    ("runbook is no URL", "mode = \"auto\"", "mode = \"auto\"\nrunbook = \"javascript:alert(1)\""),
    ("wrong type", "mode = \"auto\"", "mode = \"auto\"\nunverified = \"yes\""),
    ("duplicate key", "mode = \"auto\"", "mode = \"auto\"\nmode = \"ask\""),
    (
        "unsafe: no health",
        "slots.green = { health = { http = \"http://127.0.0.1:9002/healthz\" } }",
        "slots.green = {}",
    ),
    ("unsafe: no probe", "probe = { exec = [\"/usr/local/bin/active-slot\"], expect = \"$old\" }", ""),
    (
        "unsafe: no steps",
        "[[service.rollback]]\nname = \"haproxy\"\nexec = [\"/usr/local/bin/switch-traffic\", \"$old\"]\ntimeout = \"30s\"\nprobe = { exec = [\"/usr/local/bin/active-slot\"], expect = \"$old\" }\n",
        "",
    ),
    // slots
    ("bad slot name", "slots.green =", "slots.\"gr een\" ="),
    (
        "no slots",
        "slots.blue  = { health = { http = \"http://127.0.0.1:9001/healthz\" } }\nslots.green = { health = { http = \"http://127.0.0.1:9002/healthz\" } }\n",
        "",
    ),
    (
        "unknown word for slots",
        "slots.blue  = { health = { http = \"http://127.0.0.1:9001/healthz\" } }\nslots.green = { health = { http = \"http://127.0.0.1:9002/healthz\" } }\n",
        "slots = \"version\"\n",
    ),
    (
        "slot twice",
        "slots.blue  = { health = { http = \"http://127.0.0.1:9001/healthz\" } }\nslots.green = { health = { http = \"http://127.0.0.1:9002/healthz\" } }\n",
        "slots = [\"blue\", \"blue\"]\n",
    ),
    (
        "two kinds of check",
        "{ http = \"http://127.0.0.1:9002/healthz\" }",
        "{ http = \"http://127.0.0.1:9002/healthz\", tcp = \"127.0.0.1:9002\" }",
    ),
    ("no kind of check", "{ http = \"http://127.0.0.1:9002/healthz\" }", "{ timeout = \"1s\" }"),
    ("bad address", "{ http = \"http://127.0.0.1:9002/healthz\" }", "{ tcp = \"127.0.0.1\" }"),
    ("bad label", "slots.green = {", "slots.green = { labels = { \"pod-name\" = \"x\" },"),
    ("relative program", "{ http = \"http://127.0.0.1:9002/healthz\" }", "{ exec = [\"curl\", \"-f\"] }"),
    // soak, limits
    ("out of range", "tick = \"15s\"", "tick = \"100ms\""),
    ("out of range", "duration = \"30m\"", "duration = \"3d\""),
    ("shorter than three ticks", "duration = \"30m\"", "duration = \"40s\""),
    ("unknown key", "tick = \"15s\"", "ticks = \"15s\""),
    ("percent for a share", "ratio = 1.5", "error_rate = 5"),
    ("ratio not above one", "ratio = 1.5", "ratio = 0.5"),
    ("negative", "ratio = 1.5", "floor = -0.1"),
    ("not finite", "ratio = 1.5", "ratio = nan"),
    ("not whole", "ratio = 1.5", "ticks = 2.5"),
    ("out of range", "ratio = 1.5", "ticks = 0"),
    ("out of range", "ratio = 1.5", "min_events = 0"),
    ("text for a number", "ratio = 1.5", "ratio = \"1.5\""),
    ("unknown tail", "ratio = 1.5", "tail = \"lax\""),
    ("unknown quantile", "ratio = 1.5", "quantiles = [\"p90\"]"),
    ("number for a duration", "ratio = 1.5", "latency_p99 = 0.5"),
    ("limit without a signal", "ratio = 1.5", "custom = { cpu = { above = 0.9 } }"),
    ("both sides of a limit", "ratio = 1.5", "custom = { cpu = { above = 0.9, below = 0.1 } }"),
    ("alpha as a percentage", "ratio = 1.5", "alpha = 5"),
    ("alpha of nothing", "ratio = 1.5", "alpha = 0"),
    ("block too long", "ratio = 1.5", "block = \"1h\""),
    ("long phase too long", "tick = \"15s\"", "tick = \"15s\", long = \"7d\""),
    ("long tick too long", "tick = \"15s\"", "tick = \"15s\", long = \"24h\", long_tick = \"10m\""),
    ("must_detect out of range", "ratio = 1.5", "must_detect = 1"),
    ("warm-up too long", "mode = \"auto\"", "mode = \"auto\"\nwarm_up = { errors = \"2h\" }"),
    ("no baseline cells", "mode = \"auto\"", "mode = \"auto\"\nbaseline = { cells_min = 0 }"),
    ("no baseline requests", "mode = \"auto\"", "mode = \"auto\"\nbaseline = { requests_min = 0 }"),
    ("waiting too long", "mode = \"auto\"", "mode = \"auto\"\nconfirm_within = \"2h\""),
    ("asking too long", "mode = \"auto\"", "mode = \"auto\"\nask_timeout = \"48h\""),
    ("recovering too long", "mode = \"auto\"", "mode = \"auto\"\nrecover_within = \"0s\""),
    ("wrong type", "mode = \"auto\"", "mode = \"auto\"\nnotify_passed = 1"),
    // plan
    ("missing step name", "name = \"haproxy\"\n", ""),
    ("missing command", "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]\n", ""),
    ("empty command", "[\"/usr/local/bin/switch-traffic\", \"$old\"]", "[]"),
    ("a shell line", "[\"/usr/local/bin/switch-traffic\", \"$old\"]", "\"switch-traffic $old\""),
    ("relative program", "\"/usr/local/bin/switch-traffic\"", "\"switch-traffic\""),
    ("variable inside an element", "\"$old\"]\ntimeout", "\"--to=$old\"]\ntimeout"),
    ("misspelt variable", "\"$old\"]\ntimeout", "\"$odl\"]\ntimeout"),
    ("shell substitution", "\"$old\"]\ntimeout", "\"$(cat /etc/passwd)\"]\ntimeout"),
    ("step too long", "timeout = \"30s\"", "timeout = \"1h\""),
    ("verify too long", "timeout = \"30s\"", "verify_timeout = \"2h\""),
    (
        "retry without a probe",
        "probe = { exec = [\"/usr/local/bin/active-slot\"], expect = \"$old\" }",
        "retry_safe = true",
    ),
    ("one word for all slots", "expect = \"$old\"", "expect = \"blue\""),
    ("word for an unknown slot", "expect = \"$old\"", "expect = { red = \"r\" }"),
    ("probe without a command", "probe = { exec = [\"/usr/local/bin/active-slot\"], expect", "probe = { expect"),
    ("probe too slow", "expect = \"$old\"", "timeout = \"5m\""),
    ("unknown key", "timeout = \"30s\"", "timout = \"30s\""),
    // brakes and fallback
    ("a brake that holds nothing back", "[email]", "[brakes]\nfleet = { most = 0, within = \"10m\" }\n[email]"),
    ("a brake of a second", "[email]", "[brakes]\nper_service = { most = 1, within = \"1s\" }\n[email]"),
    ("a brake without its span", "[email]", "[brakes]\nper_version = { most = 2 }\n[email]"),
    ("a brake that is a number", "[email]", "[brakes]\nfleet = 3\n[email]"),
    ("misspelt brake", "[email]", "[brakes]\nfleat = { most = 3, within = \"10m\" }\n[email]"),
    ("a fallback without a command", "[email]", "[fallback]\nafter = \"5m\"\n[email]"),
    ("a fallback with a relative program", "[email]", "[fallback]\nexec = [\"page\"]\n[email]"),
    ("a fallback with a variable", "[email]", "[fallback]\nexec = [\"/bin/page\", \"$old\"]\n[email]"),
    ("a fallback a week later", "[email]", "[fallback]\nexec = [\"/bin/page\"]\nafter = \"7d\"\n[email]"),
    // who is told
    (
        "a receiver without a route",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\nemail = { to = [\"a@example.org\"] }\n[metrics.web]",
    ),
    (
        "a receiver that tells nobody",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "a receiver with a path for a name",
        "[metrics.web]",
        "[[receiver]]\nname = \"on/call\"\nemail = { to = [\"a@example.org\"] }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "two receivers of one name",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\nemail = { to = [\"a@example.org\"] }\n[[receiver]]\nname = \"oncall\"\nemail = { to = [\"a@example.org\"] }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "a receiver that is there already",
        "[metrics.web]",
        "[[receiver]]\nname = \"email\"\nemail = { to = [\"a@example.org\"] }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "a misspelt channel",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\nslak = { url_file = \"/etc/s\" }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "a chat's address in the file",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\nslack = { url = \"https://hooks.slack.com/services/T/B/x\" }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "a pager's key in the file",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\npagerduty = { routing_key = \"0123\" }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "a webhook without a secret",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\nwebhook = { url = \"https://example.org/in\" }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "a webhook's secret in the file",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\nwebhook = { url = \"https://example.org/in\", secret = \"x\" }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "an Alertmanager that is no address",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\nalertmanager = { url = \"am:9093\" }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "a command by a relative path",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\ncommand = { exec = [\"tell\"] }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    (
        "mail to nobody",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\nemail = { to = [] }\n[route]\nreceiver = \"email\"\n[metrics.web]",
    ),
    ("a route to nobody", "[metrics.web]", "[route]\nreceiver = \"oncal\"\n[metrics.web]"),
    ("a route without a receiver", "[metrics.web]", "[route]\nrepeat_interval = \"4h\"\n[metrics.web]"),
    (
        "a first route that narrows",
        "[metrics.web]",
        "[route]\nreceiver = \"email\"\nmatchers = ['severity=\"page\"']\n[metrics.web]",
    ),
    (
        "a matcher of no label",
        "[metrics.web]",
        "[route]\nreceiver = \"email\"\n[[route.routes]]\nreceiver = \"email\"\nmatchers = ['team=\"pay\"']\n[metrics.web]",
    ),
    (
        "a matcher of no kind",
        "[metrics.web]",
        "[route]\nreceiver = \"email\"\n[[route.routes]]\nreceiver = \"email\"\nmatchers = ['kind=\"rolled_bak\"']\n[metrics.web]",
    ),
    (
        "a matcher that is no expression",
        "[metrics.web]",
        "[route]\nreceiver = \"email\"\n[[route.routes]]\nreceiver = \"email\"\nmatchers = ['service=~\"(pay\"']\n[metrics.web]",
    ),
    (
        "a matcher without an operator",
        "[metrics.web]",
        "[route]\nreceiver = \"email\"\n[[route.routes]]\nreceiver = \"email\"\nmatchers = ['service']\n[metrics.web]",
    ),
    (
        "a severity of another tool",
        "[metrics.web]",
        "[route]\nreceiver = \"email\"\n[[route.routes]]\nreceiver = \"email\"\nmatchers = ['severity=\"critical\"']\n[metrics.web]",
    ),
    (
        "reminders every second",
        "[metrics.web]",
        "[route]\nreceiver = \"email\"\nrepeat_interval = \"1s\"\n[metrics.web]",
    ),
    (
        "a misspelt key of a route",
        "[metrics.web]",
        "[route]\nreceiver = \"email\"\n[[route.routes]]\nreceiver = \"email\"\ncontinu = true\n[metrics.web]",
    ),
    ("templates by a relative path", "[metrics.web]", "[notify]\ntemplates = \"mails\"\n[metrics.web]"),
    (
        "a link with a strange variable",
        "[metrics.web]",
        "[links]\ngrafana = \"https://g.example.org/{{ srvice }}\"\n[metrics.web]",
    ),
    ("a link that is no address", "[metrics.web]", "[links]\nstatus_page = \"javascript:alert(1)\"\n[metrics.web]"),
    ("a digest at no time", "[metrics.web]", "[digest]\ncron = \"weekly\"\n[metrics.web]"),
    ("a digest without a time", "[metrics.web]", "[digest]\ncovers = \"7d\"\n[metrics.web]"),
    ("a digest of a year", "[metrics.web]", "[digest]\ncron = \"0 0 7 * * 1\"\ncovers = \"52w\"\n[metrics.web]"),
    (
        "a pager's key without TLS",
        "[metrics.web]",
        "[[receiver]]\nname = \"oncall\"\npagerduty = { routing_key_file = \"/etc/k\", url = \"http://pd.example.org/v2\" }\n[route]\nreceiver = \"oncall\"\n[metrics.web]",
    ),
    ("mails that nobody gets", "to = [\"oncall@example.org\"]\n", ""),
    ("a default of another word", "mode = \"auto\"", "mode = \"ask\"\nask_default = \"yes\""),
    // the file itself
    ("broken syntax", "[email]", "[email"),
    ("broken string", "\"auto\"", "\"auto"),
    ("control character", "\"auto\"", "\"au\u{1}to\""),
];

fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the good file has no {from:?}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn the_good_file_is_good() {
    let settings = parse("flipback.toml", GOOD).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(settings.services.len(), 1);
}

#[test]
fn every_mistake_has_its_message() {
    let mut out = String::new();
    for (class, from, to) in CASES {
        let text = broken(from, to);
        let problems = match parse("flipback.toml", &text) {
            Ok(_) => panic!("{class}: {to:?} was taken"),
            Err(problems) => problems,
        };
        out.push_str(&format!("### {class}\n{problems}\n"));
    }
    insta::assert_snapshot!("bad_config", out);
}

#[test]
fn all_problems_come_at_once() {
    let text = GOOD.replace("ratio = 1.5", "ratoi = 1.5").replace("\"auto\"", "\"outo\"").replace("\"30s\"", "30");
    let problems = parse("flipback.toml", &text).unwrap_err();
    assert_eq!(problems.0.len(), 3, "{problems}");
}

/// A file that is still being written, cut at each of its bytes: whole settings or a refusal, never half of them.
#[test]
fn a_half_written_file_is_refused_or_whole() {
    let whole = parse("f", GOOD).unwrap();
    let (mut refused, mut taken) = (0, 0);
    for end in (0..GOOD.len()).filter(|end| GOOD.is_char_boundary(*end)) {
        match parse("f", &GOOD[..end]) {
            Err(problems) => {
                assert!(!problems.0.is_empty());
                refused += 1;
            }
            // What is a whole file by itself names the service with all that is said of it up to there.
            Ok(settings) => {
                assert_eq!(settings.services[0].name, whole.services[0].name);
                taken += 1;
            }
        }
    }
    println!("{refused} cuts refused, {taken} whole by themselves");
    assert!(refused > GOOD.len() / 2);
}

#[test]
fn odd_files_are_read_or_refused_with_a_word() {
    assert!(parse("f", &format!("\u{feff}{GOOD}")).is_ok(), "a byte order mark is no mistake");
    assert!(parse("f", &GOOD.replace('\n', "\r\n")).is_ok(), "nor are DOS line ends");
    for (what, text) in [
        ("empty", String::new()),
        ("only a comment", "# nothing\n".into()),
        ("deep nesting", format!("x = {}{}", "[".repeat(10_000), "]".repeat(10_000))),
        ("deep tables", format!("[{}]", vec!["a"; 5000].join("."))),
        ("not TOML at all", "{\"json\": true}".into()),
        ("a long line", format!("x = \"{}\"", "y".repeat(200_000))),
    ] {
        let problems = parse("f", &text).unwrap_err();
        assert!(!problems.0.is_empty() && problems.to_string().len() < 20_000, "{what}");
    }
}

#[test]
fn the_examples_load() {
    for (name, text) in [
        ("flipback.toml", include_str!("../../config/flipback.toml")),
        ("minimal.toml", include_str!("../../config/minimal.toml")),
    ] {
        parse(name, text).unwrap_or_else(|p| panic!("{p}"));
    }
    // The commented example must show every key; what it comments out counts when it is uncommented.
    let all: String = include_str!("../../config/flipback.toml")
        .lines()
        .map(|l| l.strip_prefix("#: ").unwrap_or(l))
        .collect::<Vec<_>>()
        .join("\n");
    parse("flipback.toml (all keys)", &all).unwrap_or_else(|p| panic!("{p}"));
}

proptest::proptest! {
    #[test]
    fn nothing_makes_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let _ = parse("f", &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn nor_does_a_damaged_good_file(at in 0usize..GOOD.len(), cut in 0usize..40, insert in "\\PC{0,8}") {
        let mut text = GOOD.to_owned();
        let begin = (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let end = (begin + cut).min(text.len());
        let end = (end..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
        text.replace_range(begin..end, &insert);
        if let Err(problems) = parse("f", &text) {
            proptest::prop_assert!(!problems.0.is_empty());
            let _ = problems.to_string();
        }
    }
}
