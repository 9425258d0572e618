package crash

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/types"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/packages"
)

const (
	module = "github.com/mulligan-queue/mulligan"
	naming = module + "/internal/call" // names the steps
	client = "github.com/nats-io/nats.go"
)

// source is what the packages that move jobs say of their calls.
type source struct {
	steps map[string]bool // by name
	asks  []site          // where the server is asked
	uses  map[string][]site
	odd   []string // names that are not constants
}

// site is where a function is made use of.
type site struct {
	in, of string // functions
	step   bool   // within the function of a step
	at     string
}

// readSource reads the packages once for all tests.
func readSource(t *testing.T) *source {
	t.Helper()
	s, err := sourceOnce()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var sourceOnce = sync.OnceValues(func() (*source, error) {
	const need = packages.NeedName | packages.NeedImports | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo
	list, err := packages.Load(&packages.Config{Mode: need, Dir: "../.."}, ".", "./consumer", "./scheduler", "./budget", "./dedupe", "./internal/cas", "./internal/pull")
	if err != nil {
		return nil, err
	}
	s := &source{steps: map[string]bool{}, uses: map[string][]site{}}
	for _, p := range list {
		if len(p.Errors) > 0 {
			return nil, fmt.Errorf("%s: %v", p.PkgPath, p.Errors)
		}
		s.read(p)
	}
	return s, nil
})

func (s *source) read(p *packages.Package) {
	for e, v := range p.TypesInfo.Types {
		s.name(p, e, v)
	}
	inspect := inspector.New(p.Syntax)
	for cursor := range inspect.Root().Preorder((*ast.Ident)(nil)) {
		id := cursor.Node().(*ast.Ident)
		f, ok := p.TypesInfo.Uses[id].(*types.Func)
		if !ok || f.Pkg() == nil {
			continue
		}
		at := site{of: short(f), at: p.Fset.Position(id.Pos()).String()}
		for c := range cursor.Enclosing((*ast.FuncLit)(nil), (*ast.FuncDecl)(nil)) {
			switch n := c.Node().(type) {
			case *ast.FuncLit:
				at.step = at.step || isStep(p, c.Parent().Node(), n)
			case *ast.FuncDecl:
				at.in = short(p.TypesInfo.Defs[n.Name].(*types.Func))
			}
		}
		switch path := f.Pkg().Path(); {
		case path == client || strings.HasPrefix(path, client+"/"):
			s.asks = append(s.asks, at)
		case path == module || strings.HasPrefix(path, module+"/"):
			s.uses[at.of] = append(s.uses[at.of], at)
		}
	}
}

// isStep reports whether a function is handed over beside the name of a step.
func isStep(p *packages.Package, parent ast.Node, fn *ast.FuncLit) bool {
	made, ok := parent.(*ast.CallExpr)
	return ok && slices.Contains(made.Args, ast.Expr(fn)) && slices.ContainsFunc(made.Args, func(arg ast.Expr) bool {
		return kindOfName(p.TypesInfo.Types[arg].Type) == "Step"
	})
}

// name notes a constant that names a step, a change or a move.
func (s *source) name(p *packages.Package, e ast.Expr, v types.TypeAndValue) {
	kind := kindOfName(v.Type)
	if kind == "" || v.IsType() {
		return
	}
	if v.Value == nil {
		if made, ok := e.(*ast.CallExpr); ok && p.TypesInfo.Types[made.Fun].IsType() {
			s.odd = append(s.odd, p.Fset.Position(e.Pos()).String())
		}
		if _, ok := e.(*ast.BinaryExpr); ok {
			s.odd = append(s.odd, p.Fset.Position(e.Pos()).String())
		}
		return
	}
	name := constant.StringVal(v.Value)
	for _, part := range map[string][]string{"Step": {""}, "Update": {".load", ".store"}, "Move": {".publish", ".ack"}}[kind] {
		s.steps[name+part] = true
	}
}

// kindOfName is Step, Update or Move; empty for any other type.
func kindOfName(t types.Type) string {
	named, ok := t.(*types.Named)
	if !ok || named.Obj().Pkg() == nil || named.Obj().Pkg().Path() != naming {
		return ""
	}
	return strings.TrimPrefix(named.Obj().Name(), "Hook")
}

// short is a function's name without the module and the client.
func short(f *types.Func) string {
	name := strings.ReplaceAll(f.Origin().FullName(), module+"/", "")
	name = strings.ReplaceAll(name, module+".", "")
	return strings.ReplaceAll(strings.ReplaceAll(name, client+"/", ""), client+".", "nats.")
}

// hooked reports whether a function is called in steps only.
func (s *source) hooked(f string, above ...string) bool {
	if slices.Contains(above, f) {
		return true
	}
	for _, u := range s.uses[f] {
		if !u.step && !s.hooked(u.in, append(above, f)...) {
			return false
		}
	}
	return len(s.uses[f]) > 0
}

// local are functions and types of the client that ask nobody.
func local() []string {
	return []string{
		"(nats.Header).", "(jetstream.KeyValueEntry).", "(jetstream.Msg).", "(*nats.Msg).Metadata", "(jetstream.MessageBatch).",
		".CachedInfo", ".Options", ".Conn", ".MaxPayload", ".IsConnected", ".LastError", ".IsClosed", ".StatusChanged", ".RemoveStatusListener",
		".NewInbox", ".NewRespInbox", "(jetstream.KeyValue).Bucket", "jetstream.New", "jetstream.With", "nats.NewMsg", "nats.DecodeHeadersMsg", "micro.ControlSubject",
	}
}

// reads change nothing: a crash beside one leaves what one beside the step before
// or behind it leaves. Those by which a move is decided are steps all the same.
func reads() []string {
	return []string{
		"(jetstream.StreamManager).Stream", "(jetstream.StreamConsumerManager).Consumer", "(jetstream.StreamConsumerManager).PushConsumer", "(jetstream.KeyValueManager).KeyValue",
		"(jetstream.ConsumerManager).ListConsumers", "(jetstream.ConsumerInfoLister).", "(jetstream.Consumer).Info",
		"(jetstream.KeyValue).Get", "(jetstream.KeyValue).WatchAll", "(jetstream.KeyWatcher).Updates", "(jetstream.Stream).GetMsg",
		"(jetstream.StreamConsumerManager).OrderedConsumer", "(jetstream.Consumer).FetchNoWait",
	}
}

// unhooked are the calls that are neither steps nor reads, each with its reason.
func unhooked() map[string]string {
	const (
		back   = "lost, the message comes back after AckWait, and nothing follows"
		copied = "a copy for observers, which may be lost"
		seen   = "tells others of the process, and ends with it"
		pulled = "what was pulled comes back after AckWait"
		person = "a person's only call, who sees whether it was made"
	)
	return map[string]string{
		"(*consumer.hand).giveBackAll (*nats.Msg).Nak":                        back,
		"(*consumer.hand).sign (*nats.Msg).Nak":                               back,
		"(*consumer.hand).sign (*nats.Msg).InProgress":                        back,
		"(*consumer.lane).giveBack (*nats.Msg).Nak":                           back,
		"(*scheduler.Scheduler).bury (*nats.Msg).NakWithDelay":                back,
		"(*consumer.Worker).Run (*nats.Conn).FlushTimeout":                    back,
		"(*consumer.Worker).tell (*nats.Conn).Publish":                        copied,
		"(*scheduler.Scheduler).tell (*nats.Conn).Publish":                    copied,
		"(*consumer.Worker).announce micro.AddService":                        seen,
		"(*scheduler.Scheduler).Run micro.AddService":                         seen,
		"(*consumer.Worker).Run (micro.Service).Stop":                         seen,
		"(*scheduler.Scheduler).Run (micro.Service).Stop":                     seen,
		"(*consumer.Worker).tellState (*nats.Conn).Subscribe":                 seen,
		"(*consumer.Worker).tellState (*nats.Msg).Respond":                    seen,
		"(*consumer.Worker).Run (*nats.Subscription).Unsubscribe":             seen,
		"(*consumer.Worker).census (*nats.Conn).SubscribeSync":                seen,
		"(*consumer.Worker).census (*nats.Conn).PublishRequest":               seen,
		"(*consumer.Worker).census (*nats.Subscription).NextMsgWithContext":   seen,
		"(*consumer.Worker).census (*nats.Subscription).Unsubscribe":          seen,
		"(*Publisher).Wait (*nats.Conn).Subscribe":                            seen,
		"(*Publisher).Wait (*nats.Subscription).Unsubscribe":                  seen,
		"(*internal/pull.Source).open (*nats.Conn).ChanSubscribe":             pulled,
		"(*internal/pull.Source).Each (*nats.Subscription).Unsubscribe":       pulled,
		"(*internal/pull.Source).Close (*nats.Subscription).Unsubscribe":      pulled,
		"(*internal/pull.Source).ask (*nats.Conn).PublishRequest":             pulled,
		"internal/pull.drain (*nats.Subscription).Drain":                      pulled,
		"(*budget.Books).reset (jetstream.KeyValue).Delete":                   person,
		"getMsg (*nats.Conn).RequestWithContext":                              "a read, see reads",
		"(*internal/cas.Bucket).Load (jetstream.Stream).GetLastMsgForSubject": "a read, which a person looks at; for moves it is a step",
	}
}

func TestEveryCallOfAMoveIsAStep(t *testing.T) {
	s := readSource(t)
	left := unhooked()
	for _, a := range s.asks {
		matches := func(prefix string) bool {
			return strings.HasPrefix(a.of, prefix) || strings.HasPrefix(prefix, ".") && strings.HasSuffix(a.of, prefix)
		}
		if a.step || slices.ContainsFunc(local(), matches) || slices.ContainsFunc(reads(), matches) || s.hooked(a.in) {
			continue
		}
		call := a.in + " " + a.of
		if unhooked()[call] == "" {
			t.Errorf("%s: %s is no step, so that no test has a crash before or after it: make it in call.Do or call.Err, or say here why not", a.at, call)
		}
		delete(left, call)
	}
	for call := range left {
		t.Errorf("%s is listed here, and there is no such call any more", call)
	}
	for _, at := range s.odd {
		t.Errorf("%s: a name of a step that is not a constant cannot be listed", at)
	}
}
