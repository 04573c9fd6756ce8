// butane: the translator of Butane as a library, since `go install` of its own program is refused.
// It reads Butane on standard input and writes Ignition on standard output; its argument is the
// directory of `contents_local`. A warning fails as an error does.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
)

func main() {
	if err := translate(); err != nil {
		fmt.Fprintln(os.Stderr, "butane:", err)
		os.Exit(1)
	}
}

func translate() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: butane DIRECTORY < FILE.bu > FILE.ign")
	}
	source, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	options := common.TranslateBytesOptions{
		// What is compressed is the whole: a golden file is to be read, and packs better.
		TranslateOptions: common.TranslateOptions{
			FilesDir:                  os.Args[1],
			NoResourceAutoCompression: true,
		},
		Pretty: true,
	}
	ignition, report, err := config.TranslateBytes(source, options)
	if len(report.Entries) > 0 {
		return fmt.Errorf("not clean:\n%s", report.String())
	}
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(ignition, '\n'))
	return err
}
