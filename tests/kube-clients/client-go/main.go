// What programs do with client-go: `exec` in a container by either protocol, and an informer.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
)

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("HOME")+"/.kube/config")
	check(err)
	client, err := kubernetes.NewForConfig(config)
	check(err)
	switch arguments := os.Args[2:]; os.Args[1] {
	case "informer":
		inform(client, arguments[0])
	default:
		os.Exit(execute(config, client, os.Args[1], arguments))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
}

// execute wants NAMESPACE POD CONTAINER tty|no-tty stdin|none COMMAND…; its status is the command's.
func execute(config *rest.Config, client *kubernetes.Clientset, protocol string, arguments []string) int {
	tty, stdin := arguments[3] == "tty", arguments[4] == "stdin"
	options := &corev1.PodExecOptions{Container: arguments[2], Command: arguments[5:], Stdin: stdin, Stdout: true,
		Stderr: !tty, TTY: tty}
	request := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(arguments[0]).Name(arguments[1]).
		SubResource("exec").VersionedParams(options, scheme.ParameterCodec)
	var executor remotecommand.Executor
	var err error
	if protocol == "websocket" {
		executor, err = remotecommand.NewWebSocketExecutor(config, "GET", request.URL().String())
	} else {
		executor, err = remotecommand.NewSPDYExecutor(config, "POST", request.URL())
	}
	check(err)
	streams := remotecommand.StreamOptions{Stdout: os.Stdout, Tty: tty}
	if stdin {
		streams.Stdin = os.Stdin
	}
	if !tty {
		streams.Stderr = os.Stderr
	}
	err = executor.StreamWithContext(context.Background(), streams)
	var code exec.CodeExitError
	if errors.As(err, &code) {
		return code.Code
	}
	check(err)
	return 0
}

// inform prints each pod of a namespace as the informer hears of it.
func inform(client *kubernetes.Clientset, namespace string) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, time.Hour, informers.WithNamespace(namespace))
	pods := factory.Core().V1().Pods().Informer()
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(pod any) { fmt.Println("added", pod.(*corev1.Pod).Name) },
		DeleteFunc: func(pod any) { fmt.Println("deleted", pod.(*corev1.Pod).Name) },
	})
	check(err)
	factory.Start(nil)
	select {}
}
