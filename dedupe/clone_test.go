package dedupe

import (
	"reflect"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A field that is added to the record must not be shared by its copy either.
func TestACopyOfARecordSharesNothingThatChanges(t *testing.T) {
	r := new(mulligan.Record)
	fill(reflect.ValueOf(r).Elem())
	c := clone(r)
	if !reflect.DeepEqual(c, r) {
		t.Errorf("the copy is %+v, want %+v", c, r)
	}
	apart(t, "Record", reflect.ValueOf(r).Elem(), reflect.ValueOf(c).Elem())
	if c := clone(new(mulligan.Record)); !reflect.DeepEqual(*c, mulligan.Record{}) {
		t.Errorf("the copy of an empty record is %+v", c)
	}
}

// fill sets each field to something.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(1)
	default:
		v.SetInt(1)
	}
}

// apart fails if two values share a pointer or a slice, but for bytes.
func apart(t *testing.T, name string, a, b reflect.Value) {
	switch a.Kind() {
	case reflect.Pointer:
		if a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", name)
			return
		}
		apart(t, name, a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Type().Elem().Kind() != reflect.Uint8 && a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", name)
			return
		}
		if a.Type().Elem().Kind() == reflect.Struct {
			apart(t, name, a.Index(0), b.Index(0))
		}
	case reflect.Struct:
		if a.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range a.NumField() {
			apart(t, name+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
	}
}
