# Everything here needs Go 1.26 or newer and nothing else, except that the race
# detector wants a C compiler: without one the tests run without it.

GO ?= go
FUZZTIME ?= 5s
FOR ?= 60s
PARALLEL ?= 1
RACE := $(shell command -v `$(GO) env CC | cut -d' ' -f1` >/dev/null 2>&1 && echo -race)

.PHONY: help run build check test fuzz sim chaos soak overload bench

help:
	@echo 'make run    the demo: everything in one process, with a provider that fails'
	@echo 'make build  a static binary, bin/mulligan'
	@echo 'make check  what must be true of the source before the tests run'
	@echo 'make test   all tests'
	@echo 'make sim    SEEDS (1000) drawn lives of many jobs, in virtual time; SEED=n repeats one'
	@echo 'make fuzz   each fuzz target for FUZZTIME ($(FUZZTIME)), or so many times (30000x)'
	@echo 'make chaos  the whole on a cluster that is wrecked for $(FOR): SEEDS (1) runs from SEED on, PARALLEL at once (Linux, root)'
	@echo 'make soak   the chaos run under load for SOAK (15m), with a look at what grows'
	@echo 'make bench  throughput and latency beside a loop of nats.go: CASES (all), ROUNDS (5)'
	@echo 'make overload  the chaos run without faults, with three times the load that it can take, for OVERLOAD (2m)'

run:
	$(GO) run ./cmd/mulligan serve --demo

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/mulligan ./cmd/mulligan

check:
	@echo gofmt
	@bad=`gofmt -l .`; test -z "$$bad" || { echo "run gofmt -w on:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	$(GO) test -run '^TestImports' ./integration

test:
	@test -n "$(RACE)" || echo 'no C compiler: the tests run without the race detector'
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout 10m ./...
	$(if $(RACE),CGO_ENABLED=0 $(GO) test -timeout 10m ./integration/protocol)

# With SEED it repeats the one that a failure named.
sim:
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout 6h ./integration/sim -run '^TestSimulation$$' -rapid.nofailfile $(if $(SEED),-rapid.seed=$(SEED) -rapid.checks=1,-rapid.seed=0 -rapid.checks=$(or $(SEEDS),1000))

# go test fuzzes one target of one package at a time.
fuzz:
	@grep -rohE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . >/dev/null || echo 'no fuzz targets'
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's|/[^/]*:func | |' | sort -u | \
	while read -r dir target; do \
		echo "$$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" || exit 1; \
	done

chaos:
	$(GO) run ./integration/chaos $(if $(SEED),-seed $(SEED)) -seeds $(or $(SEEDS),1) -for $(FOR) -parallel $(PARALLEL)

soak:
	$(GO) run ./integration/chaos -soak $(if $(SEED),-seed $(SEED)) $(if $(SOAK),-for $(SOAK))

overload:
	$(GO) run ./integration/chaos -overload $(if $(SEED),-seed $(SEED)) $(if $(OVERLOAD),-for $(OVERLOAD))

bench:
	$(GO) run ./cmd/mulligan bench $(CASES) --rounds $(or $(ROUNDS),5)
