# Two commands matter: `make demo` and `make test`. Both say in one line what is missing.

.PHONY: build demo demo-bare pictures test lint fmt

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

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

fmt:
	cargo fmt
