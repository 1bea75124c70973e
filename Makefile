# make test is all that a change must pass: it makes the machine ready (as
# root) and runs every test.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    = 30s
SOAKTIME    = 10m

build:
	CGO_ENABLED=0 go build -trimpath -o wireguard4netns ./cmd/wireguard4netns

test:
	test/run

lint:
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go vet -tags root,bench ./...
	for arch in arm64 arm; do CGO_ENABLED=0 GOARCH=$$arch go build ./... || exit; done
	go run $(STATICCHECK) -tags root,bench ./...
	test/generated

fuzz:
	test/fuzz $(FUZZTIME)

bench:
	test/run -tags bench -run '^TestBench$$' -count=1 -timeout 30m -v ./test/bench

# Engines beside each other.
bench-engine:
	test/run -tags bench -run '^TestBenchEngine$$' -count=1 -timeout 60m -v ./test/bench

idle:
	test/run -tags bench -run '^TestIdle$$' -count=1 -v ./test/bench

scale:
	test/run -tags bench -run '^TestScale$$' -count=1 -timeout 20m -v ./test/bench

soak:
	test/run -run '^TestSoak$$' -count=1 -timeout 60m -v ./test/e2e -args -soak $(SOAKTIME)

docs:
	rm -f docs/man/*.1
	go run ./docs/man docs/man

.PHONY: build test lint fuzz bench bench-engine idle scale soak docs
