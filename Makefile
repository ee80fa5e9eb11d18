# Everything from two commands: `make demo` shows all of it, `make test` checks all of it. Both need nothing prepared.

PATH := $(PATH):$(HOME)/.cargo/bin
export PATH
NVLANE := .venv/bin/nvlane
PYTHON := .venv/bin/python

.PHONY: help demo test test-kill lint bench bench-target bench-engine bench-nvme loom fuzz docs man install-tools clean

help:
	@echo 'make demo    every lane, proven from inside a guest, in the lab; writes demo-report.json'
	@echo 'make test    all tests: Python, then Rust'
	@echo 'make test-kill  the target killed a hundred times under a guest that verifies, once for each front end'
	@echo 'make lint    formatters, linters and type checks only'
	@echo 'make bench   how quick nvlane itself is'
	@echo 'make bench-target  nvlane-target beside qemu-storage-daemon, driven by qemu-img; ratios'
	@echo 'make bench-engine  the engine alone: a driver and a reactor in one program'
	@echo 'make bench-nvme    instructions and cycles of the NVMe driver for each 4 KiB I/O (NVME=0000:05:00.0: a drive on vfio-pci)'
	@echo 'make loom    the sleeping and waking of reactors and rings, in every order that there is'
	@echo 'make fuzz    every fuzz target for FUZZ_SECONDS (60); needs a nightly Rust and cargo-fuzz'
	@echo 'make install-tools   only what the others prepare: packages, .venv, the programs in Rust'
	@echo 'make docs    the handbook as HTML: target/handbook/index.html'
	@echo 'make man     the manual page, from the definitions of the command line'
	@echo 'make clean   removes what make made here; the cache in ~/.cache/nvlane stays'

demo:
	@tools/prepare run
	@$(NVLANE) demo --json demo-report.json

# Rust's tests run also when Python's fail, so that one run shows everything.
test:
	@tools/prepare test
	@status=0; \
	$(PYTHON) -m pytest -n 2 $(PYTEST_ARGS) || status=$$?; \
	cargo test --locked || status=$$?; \
	exit $$status

test-kill:
	@tools/prepare test
	NVLANE_KILLS=$${NVLANE_KILLS:-100} $(PYTHON) -m pytest -s tests/target/test_guest_kills.py

lint:
	@tools/prepare test
	$(PYTHON) -m ruff check src tests benchmarks
	$(PYTHON) -m ruff format --check src tests benchmarks
	$(PYTHON) -m mypy
	cargo fmt --check
	cargo clippy --quiet --all-targets --locked -- -D warnings

bench:
	@tools/prepare run
	@$(PYTHON) benchmarks/startup.py
	@$(PYTHON) benchmarks/up.py

bench-target:
	@tools/prepare run
	@$(PYTHON) benchmarks/target.py $(BENCH_ARGS)

bench-engine:
	cargo bench --locked -p nvlane-target --bench loopback -- $(BENCH_ARGS)

bench-nvme:
	@cargo run --quiet --locked --release -p nvlane-nvme --example nvme_cost -- $(NVME)

# A build of its own: with --cfg loom the atomics are loom's, and nothing else than its models can run.
loom:
	RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=target/loom \
		cargo test --locked --release --lib -p nvlane-ring -p nvlane-target loom

# What is found goes to target/fuzz; from there a person takes into fuzz/corpus what is worth keeping.
FUZZ_SECONDS := 60
fuzz:
	@cargo +nightly fuzz --version >/dev/null 2>&1 || \
		{ echo 'make fuzz needs: rustup toolchain install nightly; cargo install cargo-fuzz' >&2; exit 1; }
	@cd fuzz && for name in $$(cargo +nightly fuzz list); do \
		mkdir -p ../target/fuzz/$$name && \
		cargo +nightly fuzz run $$name ../target/fuzz/$$name corpus/$$name -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# Every warning is an error: a dead link, a heading that is gone, a page outside the contents.
docs:
	@tools/prepare test
	@$(PYTHON) -m sphinx -q -W --keep-going -b html -d target/handbook-doctrees docs target/handbook
	@echo target/handbook/index.html

man:
	@tools/prepare run
	@$(NVLANE) man >docs/man/nvlane.1

install-tools:
	@tools/prepare run

clean:
	rm -rf .venv target demo-report.json src/nvlane/_bin src/nvlane/_native.abi3.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
