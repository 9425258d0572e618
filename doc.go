// Package mulligan is what services and handlers import: jobs and their kinds,
// the retry policy, how handlers speak, publishing, and the formats in which a
// job and the record of its key are stored on NATS JetStream.
//
// A job's life, by going to definition: [Publisher.Publish] stores it; a
// consumer.Worker admits it, calls its [Handler] and judges the outcome; a
// scheduler.Scheduler buries what is spent and replays it on request.
//
// Importing this package pulls in the NATS client and nothing of the worker.
package mulligan
