package metrics_test

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mulligan-queue/mulligan/metrics"
)

func ExampleNew() {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg)
	m.Attempt("email.send", "", 20*time.Millisecond)
	m.Attempt("email.send", "http_503", 5*time.Second)

	families, err := reg.Gather()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range families {
		if f.GetName() == "mulligan_attempts_total" {
			for _, series := range f.GetMetric() {
				fmt.Println(series.GetLabel()[1].GetValue(), series.GetCounter().GetValue())
			}
		}
	}
	// Output:
	// http_503 1
	// ok 1
}
