// Command pause keeps the namespaces of a Pod alive until the runtime ends it.
//
// It is the Pod's first process where containers share a PID namespace, so it also collects the exit status of
// processes that nobody else waits for.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func collect() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return
		}
	}
}

func main() {
	exited := make(chan os.Signal, 1)
	stop := make(chan os.Signal, 1)
	signal.Notify(exited, syscall.SIGCHLD)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	for {
		select {
		case <-exited:
			collect()
		case <-stop:
			return
		}
	}
}
