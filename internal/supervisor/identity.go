package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/process"
)

// Whom workers run as is found out when a generation is made, and is part of it: a rollback,
// and a successor that takes over, go on with the same numbers, whatever the databases say
// by then.

// self is whom this process runs as.
type self struct {
	uid, gid int
	groups   []int
}

func ourselves() (self, error) {
	groups, err := os.Getgroups()
	if err != nil {
		return self{}, fmt.Errorf("read the groups of this process: %w", err)
	}
	return self{uid: os.Geteuid(), gid: os.Getegid(), groups: groups}, nil
}

// identify finds out whom p's workers run as.
func (p *pool) identify() error {
	me, err := ourselves()
	if err != nil {
		return err
	}
	p.identity, err = me.identify(p.cfg, p.key)
	return err
}

// identify returns whom workers with the settings c run as, nil for whom we do; key makes the
// key of a setting what operators write.
func (me self) identify(c *config.Config, key func(string) string) (*process.Identity, error) {
	if c.User == "" {
		if me.uid == 0 {
			return nil, &ipc.Failure{
				Exit: ipc.ExitConfig, What: key("user") + ": the service was started as root, and it is not said whom its workers shall run as",
				Try: "set user to one without privileges, or to root if they shall be root's (--set user=root, PREFORKD_USER=root)",
			}
		}
		return nil, me.onlyOurs(c, key)
	}
	id, primary, err := lookUser(c.User, key("user"))
	if err != nil {
		return nil, err
	}
	switch {
	case me.uid != 0 && id.UID != me.uid:
		return nil, me.needsRoot(key("user"), fmt.Sprintf("as %s", c.User))
	case me.uid != 0 || id.UID == 0 && c.Group == "" && len(c.Groups) == 0: // nothing changes
		id.GID, id.Groups = me.gid, me.groups
		return id, me.onlyOurs(c, key)
	}
	return id, chooseGroups(id, primary, c, key)
}

// chooseGroups completes id, whose primary group is known unless it is negative.
func chooseGroups(id *process.Identity, primary int, c *config.Config, key func(string) string) (err error) {
	id.GID = primary
	if c.Group != "" {
		if id.GID, err = lookGroup(c.Group, key("group")); err != nil {
			return err
		}
	}
	if id.GID < 0 {
		return &ipc.Failure{
			Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: there is no user of number %s, so that its group is not known", key("user"), c.User),
			Try: "set group, too, or set user to one that exists (getent passwd)",
		}
	}
	// As initgroups(3): the group, and those that the user is a member of. The primary one
	// of the database is none of these where another was set.
	id.Groups = slices.DeleteFunc(id.Groups, func(g int) bool { return g == primary })
	id.Groups = append(id.Groups, id.GID)
	for i, name := range c.Groups {
		g, err := lookGroup(name, fmt.Sprintf("%s[%d]", key("groups"), i))
		if err != nil {
			return err
		}
		id.Groups = append(id.Groups, g)
	}
	slices.Sort(id.Groups)
	id.Groups = slices.Compact(id.Groups)
	return nil
}

// onlyOurs refuses groups that this process, not being root's, cannot give to others.
func (me self) onlyOurs(c *config.Config, key func(string) string) error {
	if me.uid == 0 {
		return nil
	}
	if c.Group != "" {
		if g, err := lookGroup(c.Group, key("group")); err != nil || g != me.gid {
			return cmp.Or(err, me.needsRoot(key("group"), fmt.Sprintf("in group %s", c.Group)))
		}
	}
	for i, name := range c.Groups {
		k := fmt.Sprintf("%s[%d]", key("groups"), i)
		if g, err := lookGroup(name, k); err != nil || g != me.gid && !slices.Contains(me.groups, g) {
			return cmp.Or(err, me.needsRoot(k, fmt.Sprintf("in group %s", name)))
		}
	}
	return nil
}

func (me self) needsRoot(key, how string) error {
	return &ipc.Failure{
		Exit: ipc.ExitPermission, What: fmt.Sprintf("%s: only a service that root has started can run its workers %s; this one is user %d's", key, how, me.uid),
		Try: "start it as root, or remove the setting: workers then run as the user that starts it",
	}
}

// lookUser finds a user, with the groups that it is a member of, and its primary group, -1
// if the user is a number that nobody has.
func lookUser(name config.Account, key string) (id *process.Identity, primary int, err error) {
	look := user.Lookup
	number, isNumber := name.ID()
	if isNumber {
		look = user.LookupId
	}
	u, err := look(string(name))
	switch {
	case err == nil:
	case isNumber && isUnknown(err): // as in containers
		return &process.Identity{UID: number, Name: string(name), Home: "/"}, -1, nil
	case isUnknown(err):
		return nil, 0, &ipc.Failure{
			Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: there is no user %q", key, name), Err: err,
			Try: fmt.Sprintf("useradd --system --no-create-home %s, or set user to one that exists (getent passwd)", name),
		}
	default:
		return nil, 0, fmt.Errorf("%s: look up user %s: %w", key, name, err)
	}
	id = &process.Identity{Name: u.Username, Home: u.HomeDir}
	if id.UID, err = strconv.Atoi(u.Uid); err == nil {
		primary, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: read the numbers of user %s: %w", key, name, err)
	}
	groups, err := u.GroupIds()
	if err != nil && !isUnknown(err) {
		return nil, 0, fmt.Errorf("%s: look up the groups of user %s: %w", key, name, err)
	}
	for _, text := range groups {
		if g, err := strconv.Atoi(text); err == nil {
			id.Groups = append(id.Groups, g)
		}
	}
	return id, primary, nil
}

// lookGroup returns the number of a group. One that is given as a number need not exist.
func lookGroup(name config.Account, key string) (int, error) {
	if number, ok := name.ID(); ok {
		return number, nil
	}
	g, err := user.LookupGroup(string(name))
	switch {
	case err == nil:
	case isUnknown(err):
		return 0, &ipc.Failure{
			Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: there is no group %q", key, name), Err: err,
			Try: fmt.Sprintf("groupadd --system %s, or name one that exists (getent group)", name),
		}
	default:
		return 0, fmt.Errorf("%s: look up group %s: %w", key, name, err)
	}
	return strconv.Atoi(g.Gid)
}

// isUnknown tells whether a database lacks what was looked for, or is not there itself, as in
// small containers.
func isUnknown(err error) bool {
	var (
		name   user.UnknownUserError
		number user.UnknownUserIdError
		group  user.UnknownGroupError
	)
	return errors.As(err, &name) || errors.As(err, &number) || errors.As(err, &group) || errors.Is(err, fs.ErrNotExist)
}
