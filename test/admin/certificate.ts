/** A certificate of its own making, for 127.0.0.1 and localhost: just as much X.509 (RFC 5280) as that takes. */
import { createPrivateKey, generateKeyPairSync, sign } from 'node:crypto';

const der = (tag: number, ...parts: readonly Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts);
  const { length } = content;
  const lengthBytes = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...lengthBytes]), content]);
};
const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts);
const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'));
const text = (tag: number, value: string): Buffer => der(tag, Buffer.from(value, 'latin1'));

const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'));
const commonName = '550403';
const basicConstraints = '551d13';
const subjectAltName = '551d11';

const nameOf = (name: string): Buffer => sequence(der(0x31, sequence(oid(commonName), text(0x0c, name))));
const extension = (id: string, value: Uint8Array): Buffer => sequence(oid(id), der(0x04, value));

/** PEM of a certificate and its key; `serial` tells certificates apart. */
export function makeCertificate(serial: number): { cert: string; key: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  const names = sequence(der(0x87, Buffer.from([127, 0, 0, 1])), text(0x82, 'localhost'));
  const extensions = sequence(
    extension(basicConstraints, sequence(der(0x01, Buffer.from([0xff])))),
    extension(subjectAltName, names),
  );
  const toBeSigned = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([serial])),
    ecdsaWithSha256,
    nameOf('attndrive test'),
    sequence(text(0x17, '200101000000Z'), text(0x18, '21200101000000Z')),
    nameOf('attndrive test'),
    publicKey,
    der(0xa3, extensions),
  );
  const signature = sign('sha256', toBeSigned, createPrivateKey(privateKey));
  const bytes = sequence(toBeSigned, ecdsaWithSha256, der(0x03, Buffer.from([0]), signature));
  const lines = bytes.toString('base64').replace(/.{64}/g, '$&\n');
  return { cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`, key: privateKey };
}
