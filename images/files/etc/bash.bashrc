# Read by interactive shells: builtins only. Completion is not loaded here; it would cost more than the whole login.
[ -n "${PS1-}" ] || return
shopt -s checkwinsize
PS1='\u@\h:\w\$ '
alias ls='ls --color=auto' grep='grep --color=auto'
