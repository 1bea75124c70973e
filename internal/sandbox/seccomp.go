//go:build amd64 || arm64

package sandbox

import (
	"errors"
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
)

// filterSystemCalls kills the process at any call that engineCalls does not
// allow, on all threads. It needs no_new_privs.
func filterSystemCalls() error {
	if !seccomp.Supported() {
		return errors.New("not offered by the kernel")
	}
	policy, err := policyOf(engineCalls())
	if err != nil {
		return err
	}
	return seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: policy})
}

func policyOf(rules []rule) (seccomp.Policy, error) {
	known, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, fmt.Errorf("list system calls: %w", err)
	}
	group := seccomp.SyscallGroup{Action: seccomp.ActionAllow}
	for _, r := range rules {
		if _, ok := known.SyscallNames[r.call]; !ok {
			continue
		}
		if len(r.when) == 0 {
			group.Names = append(group.Names, r.call)
			continue
		}
		call := seccomp.NameWithConditions{Name: r.call}
		for _, c := range r.when {
			call.Conditions = append(call.Conditions, seccomp.Condition{
				Argument: c.argument, Operation: operations[c.is], Value: c.value,
			})
		}
		group.NamesWithCondtions = append(group.NamesWithCondtions, call)
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionKillProcess,
		Syscalls:      []seccomp.SyscallGroup{group},
	}, nil
}

var operations = map[test]seccomp.Operation{equal: seccomp.Equal, withoutBits: seccomp.BitsNotSet}
