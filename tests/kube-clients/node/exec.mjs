// exec.mjs NAMESPACE POD CONTAINER tty|no-tty stdin|none COMMAND...   with the JavaScript client; the status is the
// command's.
import { Exec, KubeConfig } from '@kubernetes/client-node'

const [namespace, pod, container, tty, stdin, ...command] = process.argv.slice(2)
const config = new KubeConfig()
config.loadFromDefault()
// It refuses http without this, even to loopback, where a jail's kube door is.
config.clusters = config.clusters.map((cluster) => ({ ...cluster, skipTLSVerify: true }))
const input = stdin === 'stdin' ? process.stdin : null
const ended = (status) => {
  const cause = status.details?.causes?.find(({ reason }) => reason === 'ExitCode')
  process.exit(status.status === 'Success' ? 0 : Number(cause?.message ?? 125))
}
const { stdout, stderr } = process
await new Exec(config).exec(namespace, pod, container, command, stdout, stderr, input, tty === 'tty', ended)
