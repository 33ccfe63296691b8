# Shows kubectl's context and namespace before the prompt. Builtins only: no prompt starts a process.
#
# The files are read for each prompt. Their times would not tell of a file that was renamed into place, and a prompt that
# names another cluster than kubectl's is worse than none. What has not changed is not parsed again.

_kube_most=262144 # what is longer is not looked at
_kube_seen='' _kube_shown=''

_kube_prompt() {
  local - LC_ALL=C IFS=: file text all=''
  set -f
  for file in ${KUBECONFIG:-${HOME-}/.kube/config}; do
    [ -f "$file" ] && [ -r "$file" ] || continue
    text=''
    { read -r -N $_kube_most text || :; } 2>/dev/null <"$file"
    [ ${#text} -lt $_kube_most ] || text='current-context: ?'
    all+=$text$'\n---\n'
  done
  [ "$all" = "$_kube_seen" ] || _kube_parse "$all"
}

# Of kubectl's own way to write YAML, and people's: block style, in whatever order and depth. The first file that sets
# the context or describes it is right, as for kubectl.
_kube_parse() {
  local IFS=$'\n' line rest section='' indent item='' inner='' value current='' name='' space='' at
  local -a names=() spaces=()
  _kube_seen=$1 _kube_shown=''
  for line in $1; do
    line=${line%$'\r'} rest=${line#"${line%%[! ]*}"}
    indent=$((${#line} - ${#rest}))
    case $rest in '' | '#'*) continue ;; esac
    if [ "$indent" = 0 ] && [[ $rest != '- '* ]]; then
      _kube_context
      section=${rest%%:*} item=''
      case $rest in current-context:*) _kube_value; current=${current:-$value} ;; esac
    elif [ "$section" = contexts ]; then
      _kube_line
    fi
  done
  [ -n "$current" ] || return 0
  space='?'
  for at in "${!names[@]}"; do
    if [ "${names[at]}" = "$current" ]; then space=${spaces[at]:-default}; break; fi
  done
  _kube_shown=$current:$space
  [ ${#_kube_shown} -le 80 ] || _kube_shown=...${_kube_shown: -77}
  # Whoever writes the file shall not write to the terminal.
  _kube_shown="(${_kube_shown//[! -~]/?}) "
}

# A line of the list of contexts: name and namespace count only where they are the context's own.
_kube_line() {
  case $rest in
    '- '*)
      if [ -z "$item" ] || [ "$indent" = $((item - 2)) ]; then
        _kube_context
        item=$((indent + 2)) indent=$item inner='' rest=${rest#- }
      fi
      ;;
  esac
  if [ "$indent" = "$item" ]; then
    case $rest in name:*) _kube_value; name=$value ;; esac
  else
    inner=${inner:-$indent}
    if [ "$indent" = "$inner" ]; then
      case $rest in namespace:*) _kube_value; space=$value ;; esac
    fi
  fi
}

_kube_context() {
  if [ -n "$name" ]; then names+=("$name") spaces+=("$space"); fi
  name='' space=''
}

# What stands after the key, without its quotes.
_kube_value() {
  value=${rest#*:}
  value=${value#"${value%%[! ]*}"}
  case $value in
    \"*\"*) value=${value#\"} value=${value%%\"*} ;;
    \'*\'*) value=${value#\'} value=${value%%\'*} ;;
    *) value=${value%% \#*} value=${value%"${value##*[! ]}"} ;;
  esac
}

PROMPT_COMMAND=_kube_prompt
PS1='${_kube_shown-}'$PS1
