# Two commands matter: `make demo` and `make test`. Both say in one line what is missing.

.PHONY: build demo demo-bare deb deb-quick docs footprint pictures test lint deny fuzz fmt

build:
	@began=$$(date +%s); cargo build --quiet --bin flipback --example demo-app && \
	echo "built in $$(( $$(date +%s) - began )) s"

# A good and a bad release on real parts. DEMO_INSTALL=1 installs what is missing (as root).
demo:
	@demo/need
	@$(MAKE) --no-print-directory build
	@demo/run

# The whole loop where nothing but Rust is installed: flipback reads the slots' metrics pages itself.
demo-bare:
	@cargo build --quiet --bin flipback --example demo-app --example demo-bare
	@target/debug/examples/demo-bare

# The pictures of README, from the mails themselves (chromium).
pictures:
	demo/pictures

# All tests, those on real parts included; first the table that holds the judgement to its promises.
test:
	@demo/need systemd-analyze tests
	cargo run --quiet --bin flipback -- simulate vectors tests/vectors/judge.json
	cargo run --quiet --bin flipback -- simulate vectors tests/vectors/sliding.json
	cargo run --quiet --bin flipback -- simulate --quick -o md
	cargo run --quiet --bin flipback -- simulate faults --seeds 2000
	cargo test --quiet --example demo-app
	cargo test

# The Debian package, into target/debian/ (cargo install --locked cargo-deb). deb-quick has an unoptimised link: for tests.
# The commit is a fact of what is shipped; in deb-quick it would compile everything anew.
deb: DEB_PROFILE = release-package
deb: export FLIPBACK_COMMIT = $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
deb-quick: DEB_PROFILE = dev
deb deb-quick:
	@command -v cargo-deb >/dev/null || { echo "missing: cargo install --locked cargo-deb"; exit 1; }
	cargo build --quiet --locked --profile $(DEB_PROFILE) --bin flipback
	cargo run --quiet --locked --example package-files -- target/package
	cargo deb --quiet --no-build --profile $(DEB_PROFILE)
	@ls -l target/debian/*.deb

# The reference of the configuration, from the code.
docs:
	FLIPBACK_DOCS=1 cargo test --quiet --lib config::reference

# What the packaged daemon costs a host: the package's size, the start, memory while idle.
footprint: deb
	packaging/footprint

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# Licences, bans, sources (cargo install --locked cargo-deny).
deny:
	cargo deny check bans licenses sources

# Every parser of foreign bytes for a minute each (cargo install --locked cargo-fuzz).
fuzz:
	fuzz/run 60

fmt:
	cargo fmt
