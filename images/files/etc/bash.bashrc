# Read by interactive shells: builtins only.
[ -n "${PS1-}" ] || return
shopt -s checkwinsize
PS1='\u@\h:\w\$ '
alias ls='ls --color=auto' grep='grep --color=auto'
. /usr/share/stockade/prompt.bash

# Completion is read at the first TAB: it would cost more than the whole login.
_complete_later() {
  unset -f _complete_later
  . /usr/share/bash-completion/bash_completion && _completion_loader "$@"
}
complete -D -o bashdefault -o default -F _complete_later
