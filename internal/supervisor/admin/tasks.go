package admin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"preforkd/internal/ipc"
)

// Tasks is how the queue of background tasks is.
type Tasks struct {
	Queue   string   `json:"queue"`         // how the broker says that it is, or where the external queue is
	PID     int      `json:"pid,omitempty"` // of the broker
	Up      bool     `json:"up"`
	Sync    string   `json:"sync,omitempty"` // when what was accepted is on the disk; empty: the external queue's affair
	Depth   int64    `json:"depth"`          // tasks that wait
	Running int64    `json:"running"`        // tasks that run, or wait to be tried again
	Oldest  Duration `json:"oldest_seconds"`
	Dead    int64    `json:"dead"`
	Used    int64    `json:"used_bytes"`
	Limit   int64    `json:"limit_bytes"`
	Full    bool     `json:"full"`
	Said    Duration `json:"said_seconds"` // since a worker has looked

	Accepted    uint64 `json:"accepted"`
	Refused     uint64 `json:"refused"`
	Finished    uint64 `json:"succeeded"`
	Failed      uint64 `json:"failed"`
	Retried     uint64 `json:"retried"`
	Redelivered uint64 `json:"redelivered"`
	Crashed     uint64 `json:"crashed"`
}

// tasksPath is that of all tasks; deadTasks, retryTask and cancelTask follow it.
const (
	tasksPath  = "/v1/tasks"
	deadTasks  = tasksPath + "/dead"
	retryTask  = "/retry"
	cancelTask = "/cancel"
	taskRoute  = tasksPath + "/ID"
	retryRoute = taskRoute + retryTask
	stopRoute  = taskRoute + cancelTask
)

// taskOf returns the task that path, which ends with verb, is about.
func taskOf(path, verb string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(path, tasksPath+"/")
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(rest, verb)
	return id, ok && id != "" && id != "dead" && !strings.Contains(id, "/")
}

// taskRouteOf returns the route of a path of one task, and other paths as they are.
func taskRouteOf(path string) string {
	for verb, route := range map[string]string{retryTask: retryRoute, cancelTask: stopRoute} {
		if _, ok := taskOf(path, verb); ok {
			return route
		}
	}
	if _, ok := taskOf(path, ""); ok {
		return taskRoute
	}
	return path
}

// tasksLimit bounds an answer about tasks: a worker asks the queue for it.
const tasksLimit = 20 * time.Second

// tasks answers what do asks for; verb ends the path of a task.
func (s *Server) tasks(do, verb string) func(*call) error {
	return func(c *call) error {
		o := ipc.TaskOrder{Do: do, Model: c.query.Get("model"), Most: 100}
		o.ID, _ = taskOf(c.r.URL.Path, verb)
		if text := c.query.Get("limit"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > 1000 {
				return usage(fmt.Sprintf("limit: %q is no number from 1 to 1000", text), "limit=100")
			}
			o.Most = n
		}
		ctx, cancel := context.WithTimeout(c.r.Context(), tasksLimit)
		defer cancel()
		answer, err := s.service.Tasks(ctx, o)
		if err != nil {
			return late(ctx, err)
		}
		return c.write(answer)
	}
}

// Tasks has the service do something with tasks.
func (c *Client) Tasks(ctx context.Context, o ipc.TaskOrder) (answer ipc.TaskAnswer, err error) {
	query := url.Values{}
	if o.Model != "" {
		query.Set("model", o.Model)
	}
	if o.Most > 0 {
		query.Set("limit", strconv.Itoa(o.Most))
	}
	method, path := http.MethodGet, tasksPath
	switch o.Do {
	case ipc.TaskDead:
		path = deadTasks
	case ipc.TaskShow:
		path += "/" + url.PathEscape(o.ID)
	case ipc.TaskCancel:
		method, path = http.MethodPost, path+"/"+url.PathEscape(o.ID)+cancelTask
	case ipc.TaskRetry:
		method, path = http.MethodPost, path+"/"+url.PathEscape(o.ID)+retryTask
	}
	err = c.ask(ctx, method, path, query, &answer)
	return answer, err
}

// TaskTable prints tasks for people.
func TaskTable(w io.Writer, tasks []ipc.TaskState, now time.Time) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TASK\tSTATUS\tATTEMPTS\tAGE\tERROR")
	for _, task := range tasks {
		age := "-"
		if task.Created != nil {
			age = now.Sub(*task.Created).Truncate(time.Second).String()
		}
		why := task.Error
		if why == "" {
			why = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", clean(task.ID), clean(task.Status), task.Attempts, age, clean(why))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// tasksLine is what a status says of tasks in one line.
func tasksLine(t *Tasks) string {
	line := fmt.Sprintf("tasks: %d wait, %d run, oldest %s, %d dead; queue: %s", t.Depth, t.Running, time.Duration(t.Oldest).Truncate(time.Second), t.Dead, clean(t.Queue))
	if t.Limit > 0 {
		line += fmt.Sprintf(", %d of %d MiB", t.Used>>20, t.Limit>>20)
	}
	return line
}
