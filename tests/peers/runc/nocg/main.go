// runc-nocg stands before runc on a machine whose cgroup2 tree has no controllers (a container in a
// host that still mounts the version 1 controllers). There runc fails on any limit it is asked to set:
// "error setting cgroup config". The wrapper takes two things out of the bundle that is to be created
// and becomes runc: the limits, which nothing could enforce, and the seccomp profile, which this build
// of runc (without libseccomp) would refuse.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const runc = "/usr/local/bin/runc"

func main() {
	if bundle, given := bundleOf(os.Args[1:]); given {
		if err := lighten(filepath.Join(bundle, "config.json")); err != nil {
			fail(err)
		}
	}
	arguments := append([]string{"runc"}, os.Args[1:]...)
	fail(syscall.Exec(runc, arguments, os.Environ()))
}

// Only `create` and `run` name a bundle; every other command passes unchanged.
func bundleOf(arguments []string) (string, bool) {
	for i, argument := range arguments {
		if value, joined := strings.CutPrefix(argument, "--bundle="); joined {
			return value, true
		}
		if argument == "--bundle" && i+1 < len(arguments) {
			return arguments[i+1], true
		}
	}
	return "", false
}

// The specification is edited as generic JSON, so that fields newer than this program survive.
func lighten(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var bundle map[string]json.RawMessage
	if err := json.Unmarshal(text, &bundle); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var linux map[string]json.RawMessage
	if err := json.Unmarshal(bundle["linux"], &linux); err != nil {
		return fmt.Errorf("%s: linux: %w", path, err)
	}
	delete(linux, "resources")
	delete(linux, "seccomp")
	if bundle["linux"], err = json.Marshal(linux); err != nil {
		return err
	}
	if text, err = json.Marshal(bundle); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// runc's own callers read the reason from standard error.
func fail(err error) {
	fmt.Fprintln(os.Stderr, "runc-nocg:", err)
	os.Exit(1)
}
