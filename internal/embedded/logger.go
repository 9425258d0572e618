package embedded

import (
	"fmt"

	"github.com/rs/zerolog"
)

// logger gives the server's log to ours. What ends the server goes to fatal.
type logger struct {
	log   zerolog.Logger
	fatal chan string
}

// Noticef logs what is normal.
func (l *logger) Noticef(format string, v ...any) { l.log.Debug().Msgf("nats: "+format, v...) }

// Warnf logs what may be of interest.
func (l *logger) Warnf(format string, v ...any) { l.log.Debug().Msgf("nats: "+format, v...) }

// Errorf logs what went wrong.
func (l *logger) Errorf(format string, v ...any) { l.log.Warn().Msgf("nats: "+format, v...) }

// Debugf logs details.
func (l *logger) Debugf(format string, v ...any) { l.log.Trace().Msgf("nats: "+format, v...) }

// Tracef logs the protocol.
func (l *logger) Tracef(format string, v ...any) { l.log.Trace().Msgf("nats: "+format, v...) }

// Fatalf reports why the server cannot go on. The first reason is the one that
// counts.
func (l *logger) Fatalf(format string, v ...any) {
	l.log.Error().Msgf("nats: "+format, v...)
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
