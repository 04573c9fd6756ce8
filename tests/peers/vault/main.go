// The whole of Vault, unmodified: server, command line and `vault agent`. The version is in go.mod.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
