package main

import (
	"context"
	"fmt"
	"log"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

func (n *node) find(pod, name string) (*container, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.pods[pod][name]; c != nil && c.failed == nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %q of pod %q is not here", name, pod)
}

func (n *node) findRunning(pod, name string) (*container, error) {
	c, err := n.find(pod, name)
	if err == nil && !c.running() {
		return nil, fmt.Errorf("container %q of pod %q has ended", name, pod)
	}
	return c, err
}

func (n *node) register(ctx context.Context) error {
	nodes := n.client.CoreV1().Nodes()
	labels := map[string]string{"kubernetes.io/hostname": n.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
	here := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: labels}}
	if _, err := nodes.Create(ctx, here, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	got, err := nodes.Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	room := corev1.ResourceList{}
	for k, v := range map[corev1.ResourceName]string{"cpu": "8", "memory": "16Gi", "pods": "1000"} {
		room[k] = resource.MustParse(v)
	}
	got.Status.Capacity, got.Status.Allocatable = room, room
	got.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"},
		{Type: corev1.NodeHostName, Address: n.name}}
	got.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(n.port)
	got.Status.NodeInfo.KubeletVersion = "v1.36.3"
	now := metav1.Now()
	got.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue,
		Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now}}
	_, err = nodes.UpdateStatus(ctx, got, metav1.UpdateOptions{})
	return err
}

// sync starts what the API server says of a pod and does not run yet, or ends the pod.
func (n *node) sync(pod *corev1.Pod) {
	key := pod.Namespace + "/" + pod.Name
	if pod.DeletionTimestamp != nil {
		n.kill(key)
		zero, only := int64(0), metav1.NewUIDPreconditions(string(pod.UID))
		n.client.CoreV1().Pods(pod.Namespace).Delete(context.Background(), pod.Name,
			metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: only})
		return
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	specs := append([]corev1.Container{}, pod.Spec.Containers...)
	for _, spec := range pod.Spec.EphemeralContainers {
		specs = append(specs, corev1.Container(spec.EphemeralContainerCommon))
	}
	fresh := false
	for _, spec := range specs {
		fresh = n.begin(key, pod, spec) || fresh
	}
	if fresh {
		n.report(pod.Namespace, pod.Name)
	}
}

// begin starts a container that is not here yet. Nothing is started again.
func (n *node) begin(key string, pod *corev1.Pod, spec corev1.Container) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pods[key] == nil {
		n.pods[key] = map[string]*container{}
	}
	if n.pods[key][spec.Name] != nil {
		return false
	}
	c := start(filepath.Join(n.dir, string(pod.UID), spec.Name), spec, pod.Name)
	n.pods[key][spec.Name] = c
	if c.failed == nil {
		go func() {
			<-c.done
			n.report(pod.Namespace, pod.Name)
		}()
	}
	return true
}

// report tells the API server how a pod is.
func (n *node) report(namespace, name string) {
	ctx, pods := context.Background(), n.client.CoreV1().Pods(namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil || pod.DeletionTimestamp != nil {
			return err
		}
		n.describe(pod)
		_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	})
	if err != nil && !apierrors.IsNotFound(err) {
		log.Printf("%s/%s: %v", namespace, name, err)
	}
}

func (n *node) describe(pod *corev1.Pod) {
	n.mu.Lock()
	running := n.pods[pod.Namespace+"/"+pod.Name]
	n.mu.Unlock()
	status := &pod.Status
	status.Phase, status.HostIP, status.PodIP = corev1.PodRunning, "127.0.0.1", "127.0.0.1"
	if status.StartTime == nil {
		now := metav1.Now()
		status.StartTime = &now
	}
	status.ContainerStatuses, status.EphemeralContainerStatuses, status.Conditions = nil, nil, nil
	over, code := true, 0
	for _, spec := range pod.Spec.Containers {
		c := running[spec.Name]
		status.ContainerStatuses = append(status.ContainerStatuses, state(c, pod, spec.Name, spec.Image))
		over = over && c != nil && !c.running()
		if c != nil && !c.running() {
			code = max(code, c.code)
		}
	}
	for _, spec := range pod.Spec.EphemeralContainers {
		one := state(running[spec.Name], pod, spec.Name, spec.Image)
		one.Ready = false // never is
		status.EphemeralContainerStatuses = append(status.EphemeralContainerStatuses, one)
	}
	if over && pod.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		status.Phase = corev1.PodSucceeded
		if code != 0 {
			status.Phase = corev1.PodFailed
		}
	}
	ready := corev1.ConditionTrue
	if over {
		ready = corev1.ConditionFalse
	}
	for kind, holds := range map[corev1.PodConditionType]corev1.ConditionStatus{corev1.PodScheduled: corev1.ConditionTrue,
		corev1.PodInitialized: corev1.ConditionTrue, corev1.ContainersReady: ready, corev1.PodReady: ready} {
		status.Conditions = append(status.Conditions,
			corev1.PodCondition{Type: kind, Status: holds, LastTransitionTime: *status.StartTime})
	}
}

func state(c *container, pod *corev1.Pod, name, image string) corev1.ContainerStatus {
	one := corev1.ContainerStatus{Name: name, Image: image, ImageID: image}
	switch {
	case c == nil:
		one.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		return one
	case c.failed != nil:
		one.State.Waiting = &corev1.ContainerStateWaiting{Reason: "RunContainerError", Message: c.failed.Error()}
		return one
	}
	one.ContainerID = "bednode://" + string(pod.UID) + "/" + name
	started := metav1.NewTime(c.started)
	if c.running() {
		one.Ready, one.State.Running = true, &corev1.ContainerStateRunning{StartedAt: started}
		return one
	}
	reason := "Completed"
	if c.code != 0 {
		reason = "Error"
	}
	one.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: int32(c.code), Reason: reason,
		StartedAt: started, FinishedAt: metav1.NewTime(c.ended), ContainerID: one.ContainerID}
	return one
}

func (n *node) kill(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.pods[key] {
		c.kill()
	}
	delete(n.pods, key)
}
