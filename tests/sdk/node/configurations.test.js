// What a back end does with the configurations and jobs of azure-iothub.

import assert from 'node:assert/strict';
import test from 'node:test';
import transports from 'azure-iot-device-mqtt';
import service from 'azure-iothub';
import { call, connect, eventually, leftOut, ready, registry } from './hub.js';

const only = { skip: leftOut };

test('a configuration is made, applied, changed and removed', only, async () => {
  const hub = registry();
  const id = 'node-made';
  await hub.create({ deviceId: 'chiller' });
  const made = (
    await hub.addConfiguration({
      id,
      content: { deviceContent: { 'properties.desired.node': { v: 1 } } },
      targetCondition: "deviceId = 'chiller'",
      priority: 10,
      metrics: { queries: { set: "SELECT deviceId FROM devices WHERE properties.desired.node.v = 1" } },
    })
  ).responseBody;
  assert.deepEqual(made.systemMetrics.results, { targetedCount: 1, appliedCount: 1 });
  assert.deepEqual(made.metrics.results, { set: 1 });
  const { properties } = (await hub.getTwin('chiller')).responseBody;
  assert.deepEqual(properties.desired.node, { v: 1 });
  await assert.rejects(hub.addConfiguration({ id, content: made.content }), /exists already/);

  const updated = (await hub.updateConfiguration({ ...made, targetCondition: "deviceId = 'nobody'" })).responseBody;
  assert.deepEqual(updated.systemMetrics.results, { targetedCount: 0, appliedCount: 0 });
  assert.equal((await hub.getTwin('chiller')).responseBody.properties.desired.node, undefined);
  // The etag is a stale one by now.
  await assert.rejects(hub.updateConfiguration(made));
  assert.deepEqual((await hub.getConfiguration(id)).responseBody, updated);
  const listed = (await hub.getConfigurations()).responseBody;
  assert.ok(listed.some((configuration) => configuration.id === id));
  await hub.removeConfiguration(id);
  await assert.rejects(hub.getConfiguration(id), /Not found/i);
});

test('a job patches twins, and is found', only, async () => {
  await registry().create({ deviceId: 'worker' });
  const jobs = service.JobClient.fromConnectionString(ready.serviceConnectionString);
  const patch = { etag: '*', tags: { job: 1 } };
  const { jobStatus } = await jobs.scheduleTwinUpdate('node-job', "deviceId = 'worker'", patch, new Date(), 60);
  assert.equal(jobStatus.status, 'scheduled');
  const done = await eventually(async () => {
    const { jobStatus: job } = await jobs.getJob('node-job');
    return job.status === 'completed' && job;
  }, 'completed');
  assert.equal(done.deviceJobStatistics.succeededCount, 1);
  assert.deepEqual((await registry().getTwin('worker')).responseBody.tags, { job: 1 });
  const { result } = await jobs.createQuery('scheduleUpdateTwin', 'completed', 10).next();
  assert.deepEqual(result.map((job) => job.jobId), ['node-job']);
  const query = registry().createQuery("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'node-job'");
  const { result: rows } = await query.next();
  assert.deepEqual(rows.map((row) => [row.deviceId, row.status]), [['worker', 'completed']]);

  await assert.rejects(jobs.scheduleTwinUpdate('node-job', '*', patch, new Date(), 60), (error) => error.responseBody.includes('JobAlreadyExists'));
  await assert.rejects(jobs.getJob('none'), (error) => error.responseBody.includes('JobNotFound'));
  await assert.rejects(jobs.scheduleTwinUpdate('wrong', 'tags.', patch, new Date(), 60), (error) => error.name === 'ArgumentError');

  const later = new Date(Date.now() + 3_600_000);
  await jobs.scheduleDeviceMethod('node-late', '*', { methodName: 'm', payload: null }, later, 60);
  assert.equal((await jobs.cancelJob('node-late')).jobStatus.status, 'cancelled');
});

test('a job calls a method on each device', only, async (t) => {
  const client = await connect(t, 'job', transports.Mqtt);
  client.onDeviceMethod('job', (request, response) => response.send(200, { said: request.payload }, () => {}));
  await call('job', 'job', 0, { connectTimeoutInSeconds: 10 });
  const jobs = service.JobClient.fromConnectionString(ready.serviceConnectionString);
  const condition = "deviceId IN ['job', 'offline']";
  await jobs.scheduleDeviceMethod('node-methods', condition, { methodName: 'job', payload: { n: 1 } }, new Date(), 60);
  const done = await eventually(async () => {
    const { jobStatus: job } = await jobs.getJob('node-methods');
    return job.status === 'completed' && job;
  }, 'completed');
  assert.deepEqual([done.deviceJobStatistics.succeededCount, done.deviceJobStatistics.failedCount], [1, 1]);
  const { result } = await registry().createQuery("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'node-methods'").next();
  const [one, other] = result;
  assert.deepEqual(one.outcome.deviceMethodResponse, { status: 200, payload: { said: { n: 1 } } });
  assert.equal(other.error.code, 'DeviceNotOnline');
});
