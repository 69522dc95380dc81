# One line a target; `make` alone lists them.
.PHONY: help demo bench brakes chaos test fuzz lint deny docs fmt release build control-plane redis libfaketime clean mutants

BACKEND ?= process
# The demo and the benchmark run optimized programs, the tests debug ones.
BIN := target/release
WITH_CLUSTER := integration-tests/control-plane/with-control-plane.sh
CARGO := cargo

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: redis release ## The whole system under the load of a busy morning (KEEP=1 leaves it up; BACKEND=kubernetes; JOBS, ORGS, WORKERS, SECONDS)
	@exec $(if $(filter kubernetes,$(BACKEND)),$(WITH_CLUSTER)) $(BIN)/jit-harness demo --backend $(BACKEND) $(if $(KEEP),--keep) $(if $(JOBS),--jobs $(JOBS)) $(if $(ORGS),--orgs $(ORGS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(SECONDS),--seconds $(SECONDS))

bench: redis release ## Latency, memory and start-up, with a pod of a real API server on the way; the longest call of Redis at the promised size
	$(CARGO) bench --quiet -p jit-core --bench slow_log
	@exec $(WITH_CLUSTER) $(BIN)/jit-harness bench

brakes: redis release ## Ten organizations, one of them refused for ever, in thirteen ways: what that costs, and whom (SICK=409,502 or all; 20 minutes)
	@exec $(WITH_CLUSTER) $(BIN)/jit-harness brakes $(if $(SICK),--sick $(SICK))

chaos: redis libfaketime release ## Random faults on the whole system, each schedule by its number (SEEDS=10, FIRST_SEED=1; KEEP_ALL=1 keeps all logs)
	@exec $(WITH_CLUSTER) $(BIN)/jit-harness chaos $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST_SEED),--first-seed $(FIRST_SEED)) $(if $(KEEP_ALL),--keep-all)

test: redis libfaketime control-plane ## Everything: unit, property and integration tests on a real Redis and a real API server
	$(CARGO) build --workspace --bins
	$(WITH_CLUSTER) $(CARGO) test --workspace
	integration-tests/openapi/run.sh
	$(WITH_CLUSTER) integration-tests/stores/run.sh

mutants: redis ## Take each rule out of the ledger, and see that a test fails without it (half an hour)
	python3 integration-tests/mutants.py

fuzz: ## What comes from outside, made up at random, some MINUTES=10 on two cores: webhooks, signatures, matchers, files of limits, stream entries, ids
	FUZZ_SECONDS=$$(( $(or $(MINUTES),10) * 10 )) $(CARGO) test -p jit-core -p jit-receiver --test fuzz -- --nocapture

lint: ## Formatting, clippy, documentation, the Lua; licences, advisories, TLS stacks and double crates where cargo-deny is installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	integration-tests/luacheck.sh check
	@if command -v cargo-deny > /dev/null; then $(MAKE) --no-print-directory deny; else echo "lint: cargo-deny is not installed, so deny.toml is not checked: make deny"; fi

deny: ## Check deny.toml: licences, advisories, one TLS stack, no crate in two majors (installs cargo-deny, minutes, once)
	@command -v cargo-deny > /dev/null || $(CARGO) install --locked cargo-deny@0.20.2
	$(CARGO) deny check $(or $(CHECKS),licenses bans sources)

docs: build ## Write the list of settings in docs/configuration.md anew, from the --help of the programs
	UPDATE_DOCS=1 $(CARGO) test --quiet -p integration-tests --test configuration

fmt: ## Format the code
	$(CARGO) fmt --all

release: ## Optimized programs, which demo, bench, brakes and chaos run
	@echo 'Building the optimized programs; the first time takes some minutes …' >&2
	@$(CARGO) build --release --workspace --bins --quiet

build: ## Debug build of all programs
	$(CARGO) build --workspace --bins

control-plane: ## Build etcd, kube-apiserver, kube-controller-manager and kubectl from Go modules (minutes, once)
	integration-tests/control-plane/build.sh

redis: ## Find redis-server, or install it from apt
	@integration-tests/redis.sh ensure > /dev/null

libfaketime: ## Find libfaketime, with which the clocks of workers go wrong, or install it from apt
	@integration-tests/libfaketime.sh ensure > /dev/null

clean: ## Remove what was built
	$(CARGO) clean
