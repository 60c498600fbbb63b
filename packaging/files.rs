//! Makes what the package has besides the binary: man pages, completions, licences of what is linked in.
//! `cargo run --example package-files -- target/package`

use std::fs;
use std::path::Path;

use clap_complete::aot::{Shell, generate_to};

type Anything = Result<(), Box<dyn std::error::Error>>;

fn main() -> Anything {
    let out = std::env::args().nth(1).ok_or("the directory to write to?")?;
    let out = Path::new(&out);
    let man = out.join("man");
    fs::create_dir_all(&man)?;
    let command = flipback::cli::command();
    // flipback.1, and one page a verb: flipback-announce.1 …
    clap_mangen::generate_to(command.clone(), &man)?;
    fs::write(man.join("flipback.toml.5"), configuration_page(&fs::read_to_string("config/flipback.toml")?))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command.clone(), "flipback", out)?;
    }
    fs::write(out.join("LICENCES.md"), licences()?)?;
    Ok(())
}

/// The commented example is the reference: every key stands in it, and a test sees to that.
fn configuration_page(example: &str) -> String {
    let mut page = String::from(
        ".TH flipback.toml 5 \"\" \"flipback 0.1.0\" \"Configuration\"\n.SH NAME\nflipback.toml \\- configuration of \
         flipback\n.SH SYNOPSIS\n/etc/flipback/flipback.toml\n.br\n/etc/flipback/conf.d/*.toml\n.SH DESCRIPTION\nA \
         flag goes before the environment (FLIPBACK_STATE_DIR, FLIPBACK_SOCKET, FLIPBACK_LOG), that before conf.d, that \
         before the main file, that before the default. Check it with\n.B flipback check\nand make the daemon read it \
         again with\n.BR \"flipback reload\" .\n.SH EVERY KEY\n.nf\n",
    );
    for line in example.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A line of text that begins with a dot or a quote is a request to roff.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        page.push_str(&format!("{guard}{line}\n"));
    }
    page.push_str(".fi\n.SH SEE ALSO\n.BR flipback (1)\n");
    page
}

/// Every crate that is linked in, by cargo's own word.
fn licences() -> Result<String, Box<dyn std::error::Error>> {
    let asked = [
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--target",
        "all",
        "--prefix",
        "none",
        "--no-dedupe",
        "--format",
        "{p}\t{l}",
    ];
    let done = std::process::Command::new(std::env::var("CARGO")?).args(asked).output()?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into());
    }
    let text = String::from_utf8(done.stdout)?;
    let mut all: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
    all.sort_unstable();
    all.dedup();
    let mut page = format!("# Licences of the {} crates in this package\n\n", all.len());
    for (name, licence) in all.into_iter().filter(|(name, _)| !name.starts_with("flipback ")) {
        let name = name.split(" (").next().unwrap_or(name);
        page.push_str(&format!("* {name}: {licence}\n"));
    }
    Ok(page)
}
