// Credentials and region that the AWS SDK for JavaScript v3 finds by itself.
import { STSClient } from "@aws-sdk/client-sts";

const client = new STSClient({});
const found = await client.config.credentials();
console.log(found.accessKeyId, await client.config.region(), found.expiration.toISOString());
