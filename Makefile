# A developer needs only four commands: make local, make test, make check, make up.
STACK ?= dev
PYTHON ?= python3

.PHONY: help local local-check test test-pulumi test-pulumi-all test-clients check mutants format plan up api-key verify history key destroy teardown
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

.venv/ready: requirements/constraints.txt requirements/dev.txt requirements/infra.txt requirements/planning.txt \
		requirements/gateway.txt requirements/smoke_tests.txt
	@$(PYTHON) -m local.install .venv requirements/dev.txt 'tests and Pulumi'

.venv-policy/ready: requirements/policy.txt
	@$(PYTHON) -m local.install .venv-policy requirements/policy.txt 'checkov and hadolint' --no-deps

# Serves a model on 127.0.0.1. Variables: STACK, MODEL, PORT, WEIGHTS (auto, real, stand-in),
# SCALE_DOWN_MINUTES, SET="key=value ...".
# SET takes several pairs, and values with spaces, brackets and quotes.
QUOTED_SET = $(if $(SET),--pairs '$(subst ','\'',$(SET))')
RUN_LOCAL = env STARTED_BY_MAKE=1 $(PYTHON) -m local --stack '$(STACK)' $(if $(MODEL),--model '$(MODEL)') $(if $(PORT),--port '$(PORT)') \
	$(if $(WEIGHTS),--weights '$(WEIGHTS)') $(if $(SCALE_DOWN_MINUTES),--scale-down-minutes '$(SCALE_DOWN_MINUTES)') \
	$(QUOTED_SET)

local:  ## STACK on this machine: real vLLM behind the gateway, with no account and no GPU
	@exec $(RUN_LOCAL)

local-check:  ## the same, then smoke tests and a short benchmark, then stop
	@exec $(RUN_LOCAL) --check

test: .venv/ready  ## every offline test
	.venv/bin/python -m pytest -n 3 --dist worksteal

test-pulumi: .venv/ready  ## stack lifecycles on Pulumi's own engine, if it is available (5 minutes)
	.venv/bin/python -m pytest tests/pulumi_engine -n 3 --dist worksteal -m 'not whole_matrix'

test-pulumi-all: .venv/ready  ## the same with every configuration, and every setting changed there and back
	.venv/bin/python -m pytest tests/pulumi_engine -n 3 --dist worksteal

# Everything the clients need is installed into .clients. The JDK is the system's, or Debian's unpacked into .clients.
CLIENTS = tests/clients_matrix
.clients/ready: requirements/clients-sdks.txt requirements/clients-frameworks.txt $(CLIENTS)/programs/package.json
	@$(PYTHON) -m local.install .clients/sdks requirements/clients-sdks.txt 'SDKs and Node'
	@$(PYTHON) -m local.install .clients/frameworks requirements/clients-frameworks.txt frameworks
	@echo "installing JavaScript clients with npm: usually half a minute, once"
	@cp $(CLIENTS)/programs/package.json .clients/
	@PATH="$(CURDIR)/.clients/sdks/bin:$$PATH" npm install --silent --no-package-lock --no-audit --no-fund --prefix .clients
	@command -v javac > /dev/null || (mkdir -p .clients/jdk && cd .clients/jdk && \
		apt-get download -q openjdk-17-jdk-headless openjdk-17-jre-headless && \
		for file in *.deb; do dpkg -x $$file . || exit 1; done && \
		find usr -type l -lname '/etc/java-*' -exec sh -c 'ln -sf "$$PWD$$(readlink "$$1")" "$$1"' _ {} \;)
	@command -v curl > /dev/null && command -v chromium > /dev/null || \
		 { echo "curl or chromium is missing; apt-get install curl chromium"; exit 1; }
	@touch $@

test-clients: .venv/ready .clients/ready  ## the SDKs people use, against the gateway; writes docs/clients.md (minutes)
	.venv/bin/python -m pytest tests/clients_matrix

check: .venv/ready .venv-policy/ready  ## format, lint, types, policy of the Dockerfiles
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv-policy/bin/python -m policy.check

mutants: .venv/ready .venv-policy/ready  ## inject single faults into the AWS program: do the tests catch them? (minutes)
	.venv/bin/python -m policy.mutants

format: .venv/ready  ## format, and fix what ruff can fix
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# Runs a module in .venv-local or .venv, whichever is up to date, and makes .venv-local where neither is.
TOOL = exec $(PYTHON) -m local.tools

plan:  ## the preview without an account: what STACK would run and cost, or why it cannot work
	@$(TOOL) infra.planning '$(STACK)' $(QUOTED_SET)

up: .venv/ready  ## deploy STACK (pulumi up), then print how to use it and what it costs (YES=1: no confirmation)
	@pulumi up --stack '$(STACK)' $(if $(YES),--yes)
	@exec .venv/bin/python -m smoke_tests.summary --stack '$(STACK)'

api-key:  ## print an API key of STACK (NAME=alice: of several, hers)
	@$(TOOL) smoke_tests.api_key --stack '$(STACK)' $(if $(filter command,$(origin NAME)),--name '$(NAME)')

# ENDPOINT=http://127.0.0.1:8000 verifies the endpoint of make local and records it under a separate name.
VERIFY = $(if $(ENDPOINT),--endpoint '$(ENDPOINT)' --name 'local-$(STACK)' \
	$(if $(wildcard .local/api-key),--api-key-file .local/api-key),--stack '$(STACK)')

verify:  ## is STACK right, how fast is it, and did anything get worse? (ENDPOINT=URL: of make local)
	@$(TOOL) smoke_tests.verify $(VERIFY)

history:  ## what make verify found of STACK so far (NAME=local-dev: of make local)
	@$(TOOL) smoke_tests.history $(if $(NAME),--name '$(NAME)',--stack '$(STACK)')

# STACK's keys, or with LOCAL=1 those of make local. ADD=alice and ROTATE=alice accept CONCURRENCY, REQUESTS_PER_MINUTE,
# TOKENS_PER_MINUTE, EXPIRES=2027-01-31T00:00:00Z, PRIORITY, HEALTH=1; ROTATE=alice also accepts GRACE_HOURS (24).
KEY = $(if $(LOCAL),--local,--stack '$(STACK)') $(if $(ADD),--add '$(ADD)') $(if $(ROTATE),--rotate '$(ROTATE)') \
	$(if $(REVOKE),--revoke '$(REVOKE)') $(if $(LIST),--list) $(if $(HEALTH),--health) \
	$(if $(CONCURRENCY),--concurrency '$(CONCURRENCY)') $(if $(EXPIRES),--expires '$(EXPIRES)') \
	$(if $(REQUESTS_PER_MINUTE),--requests-per-minute '$(REQUESTS_PER_MINUTE)') \
	$(if $(TOKENS_PER_MINUTE),--tokens-per-minute '$(TOKENS_PER_MINUTE)') \
	$(if $(PRIORITY),--priority '$(PRIORITY)') $(if $(GRACE_HOURS),--grace-hours '$(GRACE_HOURS)')

key:  ## API keys of STACK: ADD=alice, ROTATE=alice, REVOKE=alice or LIST=1 (LOCAL=1: of make local)
	@$(TOOL) smoke_tests.keys $(KEY)

destroy: .venv/ready  ## destroy STACK, and verify that nothing is left of it
	@pulumi destroy --stack '$(STACK)' $(if $(YES),--yes)
	@grep -qsE 'vllm-endpoint:target: *kubernetes' 'Pulumi.$(notdir $(STACK)).yaml' || exec .venv/bin/python -m smoke_tests.teardown --stack '$(STACK)'

teardown: .venv/ready  ## list resources of STACK left in AWS and their cost (FIX=1: delete them)
	@exec .venv/bin/python -m smoke_tests.teardown --stack '$(STACK)' $(if $(FIX),--fix)
