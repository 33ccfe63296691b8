// Command bednode plays one Kubernetes node for the tests. A container is a real process in a folder of its own; exec,
// attach, port-forward and logs are served by the kubelet's own streaming code (k8s.io/cri-streaming), so what crosses
// the API server is what crosses it on a real cluster. There are no images and no isolation: a pod's command runs as
// bednode's user, on this machine.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

type node struct {
	name, dir string
	port      int
	client    kubernetes.Interface
	mu        sync.Mutex
	pods      map[string]map[string]*container // by "namespace/name", and the container's name
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	name := flag.String("name", "node-0", "the node's name")
	port := flag.Int("port", 10250, "where to listen, on loopback")
	cert, key := flag.String("cert", "", ""), flag.String("key", "", "")
	ca := flag.String("client-ca", "", "whose client certificates may call")
	dir := flag.String("dir", "", "where the containers' folders go")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	check(err)
	client, err := kubernetes.NewForConfig(config)
	check(err)
	n := &node{name: *name, dir: *dir, port: *port, client: client, pods: map[string]map[string]*container{}}
	go n.listen(*cert, *key, *ca)
	check(n.register(context.Background()))
	go n.endWithSignal()

	source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", "",
		fields.OneTermEqualSelector("spec.nodeName", *name))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: source, ObjectType: &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { n.sync(o.(*corev1.Pod)) },
			UpdateFunc: func(_, o any) { n.sync(o.(*corev1.Pod)) },
			DeleteFunc: func(o any) {
				if pod, ok := o.(*corev1.Pod); ok {
					n.kill(pod.Namespace + "/" + pod.Name)
				}
			},
		}})
	log.Printf("node %s on %d", *name, *port)
	informer.Run(make(chan struct{}))
}

func (n *node) listen(cert, key, ca string) {
	pem, err := os.ReadFile(ca)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	server := &http.Server{Addr: "127.0.0.1:" + strconv.Itoa(n.port), Handler: n.handler(),
		TLSConfig: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"http/1.1"}}}
	check(server.ListenAndServeTLS(cert, key))
}

// endWithSignal takes the containers along.
func (n *node) endWithSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
	n.mu.Lock()
	for _, pod := range n.pods {
		for _, c := range pod {
			c.kill()
		}
	}
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		log.Fatal(strings.TrimSpace(err.Error()))
	}
}
