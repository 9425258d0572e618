// Package config reads what the program is told: flags go over the environment,
// which goes over the file.
package config

import (
	"fmt"
	"io"
	"os"
)

// A Config is the settings and the file that they name.
type Config struct {
	Settings Settings
	// File is empty if no file is named.
	File File
}

// Load reads an environment, given as os.Environ does, and the file at path or,
// if that is empty, at the environment's MULLIGAN_CONFIG.
func Load(environ []string, path string) (Config, error) {
	s, err := Read(environ, Settings{})
	if path == "" {
		path = s.Config
	}
	if path == "" {
		return Config{Settings: s}, err
	}
	b, err := readFile(path)
	if err != nil {
		return Config{Settings: s}, fmt.Errorf("read the config file: %w", err)
	}
	f, err := Parse(b)
	if err != nil {
		return Config{Settings: s}, fmt.Errorf("%s: %w", path, err)
	}
	s, err = read(environ, fileSettings{f.Settings, path})
	s.Config = path
	return Config{Settings: s, File: f}, err
}

// readFile reads no more of a file than tells that it is too large: it may be
// one without an end.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}
