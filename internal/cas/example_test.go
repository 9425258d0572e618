package cas_test

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/cas"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func ExampleBucket_Update() {
	env, stop := natstest.Start()
	defer stop()
	ctx := context.Background()
	if _, err := env.JS.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "shelf"}); err != nil {
		fmt.Println(err)
		return
	}
	shelf, err := cas.Open(ctx, env.JS, "shelf")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, word := range []string{"granted", "denied"} {
		err := shelf.Update(ctx, "note", "ada", func(value []byte) (cas.Change, error) {
			return cas.Change{Value: append(value, " "+word...)}, nil
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	value, revision, err := shelf.Load(ctx, "ada")
	fmt.Printf("%q at revision %d, %v\n", value, revision, err)
	// Output: " granted denied" at revision 2, <nil>
}
