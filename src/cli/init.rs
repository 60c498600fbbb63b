//! `flipback init`: a first configuration, checked before it is there, never over another.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{exit, print};
use crate::config::{self, Overrides};

#[derive(Args)]
pub struct InitArgs {
    /// What is switched and watched
    #[arg(long)]
    service: String,
    /// The places its traffic can be on
    #[arg(long, value_delimiter = ',', default_value = "blue,green")]
    slots: Vec<String>,
    /// Where its metrics are read
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    prometheus: String,
    /// Selector of the counter of requests; $service and $slot stand for what is asked
    #[arg(long, value_name = "PROMQL", default_value = r#"http_requests_total{service="$service",env="$slot"}"#)]
    requests: String,
    /// Selector of those that failed
    #[arg(
        long,
        value_name = "PROMQL",
        default_value = r#"http_requests_total{service="$service",env="$slot",code=~"5.."}"#
    )]
    errors: String,
    /// Selector of the latency histogram's buckets; "none" where there is none
    #[arg(
        long,
        value_name = "PROMQL",
        default_value = r#"http_request_duration_seconds_bucket{service="$service",env="$slot"}"#
    )]
    latency: String,
    /// Who is told by mail; without it notices go to the log only
    #[arg(long, value_name = "ADDRESS")]
    mail: Option<String>,
    /// The server that takes the mails
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:25")]
    smarthost: String,
    /// The file that is made
    #[arg(long, default_value = "/etc/flipback/flipback.toml")]
    config: PathBuf,
}

pub fn run(args: &InitArgs, overrides: &Overrides) -> i32 {
    match make(args, overrides) {
        Ok(text) => {
            print(&text);
            exit::OK
        }
        Err(why) => {
            eprintln!("flipback: {}", why.trim_end());
            exit::FAILED
        }
    }
}

fn make(args: &InitArgs, overrides: &Overrides) -> Result<String, String> {
    let path = &args.config;
    if fs::symlink_metadata(path).is_ok() {
        return Err(format!("{}: is there already, and is left as it is", path.display()));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wrong = |place: &Path, error: &std::io::Error| format!("{}: {error}", place.display());
    let meta = fs::metadata(dir).map_err(|error| wrong(dir, &error))?;
    // Beside its place, so that what is read with it (conf.d) is checked with it.
    let draft = dir.join(format!(".flipback-init-{}.toml", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&draft)
        .map_err(|error| wrong(&draft, &error))?;
    let done = (|| {
        file.write_all(text(args).as_bytes()).and_then(|()| file.sync_all()).map_err(|error| wrong(&draft, &error))?;
        // The daemon's group reads it, where the package gave the directory to it.
        let _ = chown(&draft, None, Some(meta.gid()));
        config::load(&draft, overrides)
            .map_err(|problems| problems.to_string().replace(&draft.display().to_string(), "as asked for"))?;
        // A link is refused where a name is taken: what somebody wrote meanwhile stays.
        fs::hard_link(&draft, path).map_err(|error| wrong(path, &error))
    })();
    let _ = fs::remove_file(&draft);
    done?;
    let (path, service) = (path.display(), &args.service);
    Ok(format!(
        "{path}: made; it watches {service} and moves nothing (mode = \"observe\").\n\nNext:\n  \
         systemctl start flipback\n  flipback check --live            what flipback sees of {service}\n  \
         flipback announce {service} --old {} --new {}   tell it of a switch\n",
        args.slots.first().map_or("OLD", String::as_str),
        args.slots.get(1).map_or("NEW", String::as_str),
    ))
}

fn text(args: &InitArgs) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let slots: Vec<String> = args.slots.iter().map(|slot| quoted(slot)).collect();
    let latency = match args.latency.as_str() {
        "none" => String::new(),
        selector => format!("latency = {}\n", quoted(selector)),
    };
    let email = args.mail.as_ref().map_or_else(
        || "# No [email]: notices go to the log only.\n".to_owned(),
        |to| {
            format!(
                "[email]\nsmarthost = {}\nfrom = {}\nto = [{}]\n",
                quoted(&args.smarthost),
                quoted("flipback <flipback@localhost>"),
                quoted(to)
            )
        },
    );
    format!(
        "# Made by flipback init. Every key, with its default: /usr/share/doc/flipback/examples/flipback.toml\n\n\
         [prometheus]\nurl = {}\n\n{email}\n[metrics.web]\nrequests = {}\nerrors = {}\n{latency}\n\
         [[service]]\nname = {}\nmetrics = \"web\"\nslots = [{}]\n\
         # It tells what it would have done, and moves nothing. For \"ask\" or \"auto\" it needs a way back and a way to\n\
         # read it: see the recipes beside the examples.\nmode = \"observe\"\n",
        quoted(&args.prometheus),
        quoted(&args.requests),
        quoted(&args.errors),
        quoted(&args.service),
        slots.join(", "),
    )
}
