# A developer needs only four commands: make local, make test, make check, make up.
STACK ?= dev
PYTHON ?= python3
# They would replace pinned packages, or stop python -m from finding the modules of this folder.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH

# make ignores a mistyped variable, and runs the first target before it rejects a second word: make local MODLE=x, make plan prod.
HASH := \#
THIS_FILE := $(firstword $(MAKEFILE_LIST))
TARGETS := $(shell sed -n 's/^\([a-z-]*\):.*$(HASH)$(HASH).*/\1/p' $(THIS_FILE))
GOALS := $(filter $(TARGETS),$(MAKECMDGOALS))
LISTED := $(foreach goal,$(GOALS),$(shell sed -n 's/^$(goal):.*$(HASH)$(HASH)[^|]*|//p' $(THIS_FILE)))
GIVEN := $(foreach name,$(filter-out PYTHON SHELL,$(.VARIABLES)),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
NOT_TARGETS := $(foreach goal,$(if $(TARGETS),$(filter-out $(TARGETS),$(MAKECMDGOALS))),$(if $(findstring /,$(goal)),,$(goal)))
ifneq ($(NOT_TARGETS),)
$(error not a target: $(NOT_TARGETS). Variables are written NAME=value, for example make plan STACK=prod; make help lists both)
endif
ifneq ($(and $(GOALS),$(filter-out $(LISTED),$(GIVEN))),)
$(error not a variable of make $(GOALS): $(filter-out $(LISTED),$(GIVEN)). Its variables: $(or $(sort $(LISTED)),none))
endif

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
	@$(PYTHON) -m local.install .venv requirements/dev.txt 'tests and Pulumi'

.venv-policy/ready: requirements/policy.txt
	@$(PYTHON) -m local.install .venv-policy requirements/policy.txt 'checkov and hadolint' --no-deps

##@ On this machine

# Machine, model and weights in, an endpoint on 127.0.0.1 out: STACK, MODEL, PORT, WEIGHTS (auto, real, stand-in),
# SCALE_DOWN_MINUTES, SET="key=value ...".
# SET takes several pairs, and values with spaces, brackets and quotes.
QUOTED_SET = $(if $(SET),--pairs '$(subst ','\'',$(SET))')
RUN_LOCAL = env STARTED_BY_MAKE=1 $(PYTHON) -m local --stack '$(STACK)' $(if $(MODEL),--model '$(MODEL)') $(if $(PORT),--port '$(PORT)') \
	$(if $(WEIGHTS),--weights '$(WEIGHTS)') $(if $(SCALE_DOWN_MINUTES),--scale-down-minutes '$(SCALE_DOWN_MINUTES)') \
	$(QUOTED_SET)

local:  ## run STACK on this machine: real vLLM behind the gateway, no account, no GPU | STACK MODEL PORT WEIGHTS SCALE_DOWN_MINUTES SET
	@exec $(RUN_LOCAL)

local-check:  ## the same, then smoke tests and a short benchmark, then stop | STACK MODEL PORT WEIGHTS SCALE_DOWN_MINUTES SET
	@exec $(RUN_LOCAL) --check

# ENDPOINT is a URL, or with STACK the name of an endpoint that another Pulumi program declares (docs/component.md).
IS_URL = $(or $(findstring :,$(ENDPOINT)),$(if $(filter command environment,$(origin STACK)),,$(ENDPOINT)))
URL_OR_NAME = $(if $(IS_URL),--endpoint '$(ENDPOINT)',--endpoint-name '$(ENDPOINT)')
# Of programs that need a stack. Not from the environment, where another program's ENDPOINT may be.
NAMED = $(if $(filter command,$(origin ENDPOINT)),--endpoint-name '$(ENDPOINT)')

# With the Python of make local where that is installed. STACK counts only where it is given.
CHAT_ENVIRONMENT = $(if $(wildcard .venv-local/made-from),.venv-local,.venv)
CHAT = $(if $(ENDPOINT),$(URL_OR_NAME)) $(if $(and $(ENDPOINT),$(IS_URL)),,$(if $(filter command environment,$(origin STACK)),--stack '$(STACK)' \
	$(if $(filter command,$(origin NAME)),--name '$(NAME)'))) $(if $(MODEL),--model '$(MODEL)') \
	$(if $(MAX_TOKENS),--max-tokens '$(MAX_TOKENS)')

chat: $(if $(wildcard .venv-local/made-from),,.venv/ready)  ## chat in the terminal with what make local started, with STACK, or with ENDPOINT=URL | STACK NAME ENDPOINT MODEL MAX_TOKENS
	@exec env STARTED_BY_MAKE=1 $(CHAT_ENVIRONMENT)/bin/python -m clients.chat $(CHAT)

##@ Development

test: .venv/ready  ## every offline test
	.venv/bin/python -m pytest -n 3 --dist worksteal

test-pulumi: .venv/ready  ## the life of a stack on Pulumi's own engine, if that is installed (5 minutes)
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

test-clients: .venv/ready .clients/ready  ## popular SDKs against the gateway; writes docs/clients.md (minutes)
	.venv/bin/python -m pytest tests/clients_matrix

# Prometheus's own promtool: the system's, or Debian's unpacked into .prometheus.
.prometheus/ready:
	@mkdir -p .prometheus
	@command -v promtool > /dev/null || (cd .prometheus && apt-get download -q prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb)
	@touch $@

test-dashboards: .venv/ready .prometheus/ready  ## every panel of the Grafana dashboard in a real Prometheus (seconds)
	.venv/bin/python -m pytest tests/image/monitoring

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

# Runs a module in .venv-local or .venv, whichever is up to date, and makes .venv-local where neither is.
TOOL = exec $(PYTHON) -m local.tools

plan:  ## preview without an account: what STACK would run and cost, or why it cannot work | STACK SET
	@$(TOOL) infra.planning '$(STACK)' $(QUOTED_SET)

up: .venv/ready  ## deploy STACK with pulumi up, then print how to use it and what it costs (YES=1: do not ask) | STACK YES
	@pulumi up --stack '$(STACK)' $(if $(YES),--yes)
	@exec .venv/bin/python -m smoke_tests.summary --stack '$(STACK)'

# Of another Pulumi program: STACK=ORG/PROJECT/STACK, and ENDPOINT=NAME if it declares several endpoints.
api-key:  ## print an API key of STACK (NAME: whose, if there are several) | STACK ENDPOINT NAME
	@$(TOOL) smoke_tests.api_key --stack '$(STACK)' $(NAMED) $(if $(filter command,$(origin NAME)),--name '$(NAME)')

# ENDPOINT=http://127.0.0.1:8000 verifies the endpoint of make local and records it under a separate name.
VERIFY = $(if $(ENDPOINT),$(URL_OR_NAME)) $(if $(and $(ENDPOINT),$(IS_URL)),--name 'local-$(STACK)' \
	$(if $(wildcard .local/api-key),--api-key-file .local/api-key),--stack '$(STACK)')

verify:  ## test and benchmark STACK, and compare with the last good run (ENDPOINT=URL: of make local; ENDPOINT=NAME: in your own program) | STACK ENDPOINT
	@$(TOOL) smoke_tests.verify $(VERIFY)

history:  ## list the results of make verify (NAME=local-dev: of make local) | STACK ENDPOINT NAME
	@$(TOOL) smoke_tests.history $(if $(filter command,$(origin NAME)),--name '$(NAME)',--stack '$(STACK)' $(NAMED))

# STACK's keys, or with LOCAL=1 those of make local. ADD=alice and ROTATE=alice accept CONCURRENCY, REQUESTS_PER_MINUTE,
# TOKENS_PER_MINUTE, EXPIRES=2027-01-31T00:00:00Z, PRIORITY, HEALTH=1; ROTATE=alice also accepts GRACE_HOURS (24).
KEY = $(if $(LOCAL),--local,--stack '$(STACK)' $(NAMED)) $(if $(ADD),--add '$(ADD)') $(if $(ROTATE),--rotate '$(ROTATE)') \
	$(if $(REVOKE),--revoke '$(REVOKE)') $(if $(LIST),--list) $(if $(HEALTH),--health) \
	$(if $(CONCURRENCY),--concurrency '$(CONCURRENCY)') $(if $(EXPIRES),--expires '$(EXPIRES)') \
	$(if $(REQUESTS_PER_MINUTE),--requests-per-minute '$(REQUESTS_PER_MINUTE)') \
	$(if $(TOKENS_PER_MINUTE),--tokens-per-minute '$(TOKENS_PER_MINUTE)') \
	$(if $(PRIORITY),--priority '$(PRIORITY)') $(if $(GRACE_HOURS),--grace-hours '$(GRACE_HOURS)')

key:  ## manage API keys: ADD, ROTATE or REVOKE=name, or LIST=1 (LOCAL=1: of make local) | STACK ENDPOINT LOCAL ADD ROTATE REVOKE LIST HEALTH CONCURRENCY REQUESTS_PER_MINUTE TOKENS_PER_MINUTE EXPIRES PRIORITY GRACE_HOURS
	@$(TOOL) smoke_tests.keys $(KEY)

destroy: .venv/ready  ## destroy STACK, and prove that nothing of it is left (YES=1: do not ask) | STACK YES
	@pulumi destroy --stack '$(STACK)' $(if $(YES),--yes)
	@grep -qsE 'vllm-endpoint:target: *kubernetes' 'Pulumi.$(notdir $(STACK)).yaml' || exec .venv/bin/python -m smoke_tests.teardown --stack '$(STACK)'

teardown: .venv/ready  ## list what is left of STACK in AWS and what it costs (FIX=1: delete it) | STACK ENDPOINT FIX
	@exec .venv/bin/python -m smoke_tests.teardown --stack '$(STACK)' $(NAMED) $(if $(FIX),--fix)
