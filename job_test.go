package mulligan_test

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mulligan-queue/mulligan"
)

func TestToken(t *testing.T) {
	for _, tt := range []struct{ name, id, want string }{
		{"a plain ID is its own token", "order-17_B", "order-17_B"},
		{"the longest plain ID is its own token", strings.Repeat("x", 128), strings.Repeat("x", 128)},
		{"a longer ID is encoded", strings.Repeat("x", 129), "=eHh4eHh4" + strings.Repeat("eHh4", 41)},
		{"a dot is encoded", "a.b", "=YS5i"},
		{"a wildcard is encoded", "*", "=Kg"},
		{"white space within is encoded", "a b", "=YSBi"},
		{"an equals sign is encoded", "=YS5i", "=PVlTNWk"},
		{"an ID that is not ASCII is encoded", "ключ", "=0LrQu9GO0Yc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := mulligan.Token(tt.id)
			if got != tt.want {
				t.Errorf("Token(%q) = %q, want %q", tt.id, got, tt.want)
			}
			if id, err := mulligan.ParseToken(got); err != nil || id != tt.id {
				t.Errorf("ParseToken(%q) = %q, %v; want %q", got, id, err, tt.id)
			}
		})
	}
}

func TestParseTokenRefuses(t *testing.T) {
	for _, tt := range []struct{ name, token string }{
		{"nothing", ""},
		{"the encoding of nothing", "="},
		{"an encoding that is not base64", "=a*b"},
		{"padding", "=Kg=="},
		{"the other base64 alphabet", "=+/+/"},
		{"bits behind the end that no encoder writes", "=Kh"},
		{"an encoded ID that needs no encoding", "=YQ"},
		{"an encoded ID over 255 bytes", mulligan.Token(strings.Repeat("é", 128))},
		{"an encoded ID that is not UTF-8", "=_w"},
		{"an encoded control character", "=CmE"},
		{"encoded white space at an end", "=IGE"},
		{"a plain token over 128 bytes", strings.Repeat("x", 129)},
		{"a token that is neither plain nor encoded", "a+b"},
		{"a line end", "a\n"},
		{"a stand-in for a bad token", mulligan.SafeToken("a+b")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := mulligan.ParseToken(tt.token)
			if !errors.Is(err, mulligan.ErrBadID) {
				t.Fatalf("ParseToken(%q) = %q, %v; want ErrBadID", tt.token, id, err)
			}
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 {
				t.Errorf("ParseToken(%q): error %q is not one short line", tt.token, err)
			}
		})
	}
}

var subjectToken = regexp.MustCompile(`^[A-Za-z0-9_=-]+$`)

func TestEveryIDHasATokenOfItsOwn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[string]string{}
	for range 20_000 {
		id := randomID(r)
		token := mulligan.Token(id)
		if !subjectToken.MatchString(token) {
			t.Fatalf("Token(%q) = %q is no subject token", id, token)
		}
		if other, taken := seen[token]; taken && other != id {
			t.Fatalf("IDs %q and %q share the token %q", id, other, token)
		}
		seen[token] = id
		if got, err := mulligan.ParseToken(token); err != nil || got != id {
			t.Fatalf("ParseToken(Token(%q)) = %q, %v", id, got, err)
		}
		if mulligan.SafeToken(token) != token {
			t.Fatalf("SafeToken(%q) = %q, want the token itself", token, mulligan.SafeToken(token))
		}
	}
}

// randomID mixes what tokens treat differently.
func randomID(r *rand.Rand) string {
	letters := []rune("aZ09_-=.~*> /+éж漢😀")
	id := make([]rune, 1+r.IntN(40))
	for i := range id {
		id[i] = letters[r.IntN(len(letters))]
	}
	return "x" + strings.TrimSpace(string(id))
}

func TestSafeTokenOfAStrangersTokenIsShort(t *testing.T) {
	a, b := mulligan.SafeToken(strings.Repeat("+", 4000)), mulligan.SafeToken("++")
	if a == b || len(a) > 64 || strings.ContainsAny(a+b, "+.*> ") {
		t.Errorf("SafeToken gives %q and %q, want two short tokens", a, b)
	}
}

func TestJobKey(t *testing.T) {
	kind := strings.Repeat("k", 128)
	seen := map[string]bool{}
	for _, job := range []mulligan.Job{
		{Kind: "email.send", ID: "1"}, {Kind: "email.send", ID: "2"}, {Kind: "email", ID: "1"},
		{Kind: "email.send", ID: "ключ"}, {Kind: "a", ID: "b/c"}, {Kind: "a", ID: "b c"},
		{Kind: kind, ID: strings.Repeat("x", 128)}, {Kind: kind, ID: strings.Repeat("é", 127)}, {Kind: kind, ID: strings.Repeat("é", 126) + "x"},
		{Kind: kind, ID: strings.Repeat("x", 255)}, {Kind: "a", ID: strings.Repeat("x", 255)},
	} {
		key := job.Key()
		if len(key) > 255 || key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("Key of %s %q is %q (%d bytes), want at most 255 printable ASCII characters", job.Kind, job.ID, key, len(key))
		}
		if seen[key] {
			t.Errorf("Key of %s %q is %q, which another job has", job.Kind, job.ID, key)
		}
		seen[key] = true
		job.Attempt, job.Payload = 3, []byte("changed")
		if again := job.Key(); again != key {
			t.Errorf("Key at a later attempt is %q, want %q", again, key)
		}
	}
	if got := (&mulligan.Job{Kind: "email.send", ID: "1"}).Key(); got != "email.send/1" {
		t.Errorf("Key = %q, want email.send/1", got)
	}
}

func TestFingerprintsOfPayloadsDiffer(t *testing.T) {
	a, b := mulligan.FingerprintOf(nil), mulligan.FingerprintOf([]byte{0})
	if a == b || len(a) != 32 || a != mulligan.FingerprintOf([]byte{}) {
		t.Errorf("fingerprints %q of nothing and %q of a zero byte", a, b)
	}
}

func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{"", "a", "=", "=YS5i", "=YQ", "=Kh", "=Kg==", "~x", "a.b", strings.Repeat("x", 129), "=" + strings.Repeat("eHh4", 85)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := mulligan.ParseToken(token)
		if err != nil {
			if safe := mulligan.SafeToken(token); safe == token || len(safe) > 64 {
				t.Errorf("SafeToken(%q) = %q, want a short stand-in", token, safe)
			}
			return
		}
		if back := mulligan.Token(id); back != token {
			t.Errorf("token %q is of ID %q, whose token is %q", token, id, back)
		}
		if !utf8.ValidString(id) || id == "" || len(id) > 255 || strings.TrimSpace(id) != id {
			t.Errorf("token %q gives the bad ID %q", token, id)
		}
	})
}
